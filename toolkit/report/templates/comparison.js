if (document.getElementById('panels')) {
  // Panels of curves, drawn from the page's data; where one points, the values of every run are told.
  const data = JSON.parse(document.getElementById('data').textContent), box = document.getElementById('panels')
  const width = 340, height = 210, left = 52, right = 8, upper = 8, lower = 24
  const colours = 6, dashes = ['', '6 3', '2 2', '8 3 2 3']
  const markers = ['M-3-3h6v6h-6z', 'M0-4l4 7h-8z', 'M0-4l4 4-4 4-4-4z', 'M0 4l4-7h-8z']
  const circle = 'M-3.2 0a3.2 3.2 0 1 0 6.4 0a3.2 3.2 0 1 0-6.4 0'
  const markerOf = run => [circle, ...markers][run % 5], dashOf = run => dashes[Math.floor(run / colours) % 4]
  let axis = data.axis
  function add(parent, kind, attributes, text = '') {
    const made = document.createElementNS('http://www.w3.org/2000/svg', kind)
    for (const name in attributes) made.setAttribute(name, attributes[name])
    made.textContent = text
    return parent.appendChild(made)
  }
  const element = (kind, parent, text = '', name = '') => {
    const made = document.createElement(kind)
    made.textContent = text
    made.className = name
    return parent.appendChild(made)
  }
  // Round numbers between two ends, about so many.
  function ticks(low, high, about) {
    const rough = (high - low) / about || 1, power = 10 ** Math.floor(Math.log10(rough))
    const step = [1, 2, 5, 10].find(each => each * power >= rough * .999) * power, found = []
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) found.push(k * step)
    return [found, Math.max(0, -Math.floor(Math.log10(step) + 1e-9))]
  }
  const minus = text => text.replace('-', '\u2212')
  const short = value => Math.abs(value) >= 1e6 ? `${+(value / 1e6).toFixed(2)} M` : Math.abs(value) >= 1e4 ? `${+(value / 1e3).toFixed(1)} k` : String(+value.toFixed(6))
  const four = value => value === undefined ? '' : minus(Math.abs(value) >= 1000 ? Math.round(value).toLocaleString('en') : Math.abs(value) < .001 && value ? value.toExponential(2) : String(+value.toPrecision(4)))

  function draw(panel) {
    const place = element('section', box), curves = panel.curves, all = curves.flat()
    element('h3', place, panel.name)
    const xs = all.flatMap(each => each[axis]), ys = all.flatMap(each => each.value)
    const [x0, x1] = [Math.min(0, ...xs.slice(0, 1)), xs.reduce((a, b) => Math.max(a, b), 0) || 1]
    let [y0, y1] = panel.limits ?? [ys[0] - Math.abs(ys[0]) * .1 - 1e-9, ys[0] + Math.abs(ys[0]) * .1 + 1e-9]
    const [marks, decimals] = ticks(y0, y1, 4), tiny = Math.abs(y1) < .001
    const svg = add(place, 'svg', {viewBox: `0 0 ${width} ${height}`, tabindex: 0, role: 'img',
      'aria-label': `${panel.name} of ${data.runs.length} runs; arrow keys move along`})
    const toX = x => left + (x - x0) / (x1 - x0) * (width - left - right)
    const toY = y => upper + (y1 - y) / (y1 - y0) * (height - upper - lower)
    for (const mark of marks) {
      add(svg, 'line', {class: 'grid', x1: left, x2: width - right, y1: toY(mark), y2: toY(mark)})
      add(svg, 'text', {x: left - 6, y: toY(mark) + 4, 'text-anchor': 'end'}, minus(tiny ? mark.toExponential(1) : Math.abs(mark) >= 1e4 ? short(mark) : mark.toFixed(decimals)))
    }
    const [along] = ticks(x0, x1, 4)
    for (const mark of along) add(svg, 'text', {x: Math.min(toX(mark), width - right - 4), y: height - 7, 'text-anchor': mark === x0 ? 'start' : 'middle'}, short(mark))
    const id = `clip-${data.panels.indexOf(panel)}`
    add(add(add(svg, 'defs', {}), 'clipPath', {id}), 'rect', {x: left - 4, y: upper - 4, width: width - left - right + 8, height: height - upper - lower + 8})
    const inside = add(svg, 'g', {'clip-path': `url(#${id})`})
    curves.forEach((pair, run) => pair.forEach((points, kind) => {
      if (!points.value.length) return
      const way = points.value.map((y, k) => `${k ? 'L' : 'M'}${toX(points[axis][k]).toFixed(1)} ${toY(y).toFixed(1)}`).join('')
      add(inside, 'path', {class: `run run-${run % colours} ${kind ? 'validation' : 'training'}`, d: way, 'stroke-dasharray': dashOf(run)})
      if (kind && points.value.length <= 60) points.value.forEach((y, k) => add(inside, 'path', {
        class: `marker run-${run % colours}`, d: markerOf(run), transform: `translate(${toX(points[axis][k]).toFixed(1)} ${toY(y).toFixed(1)})`}))
    }))
    const cursor = add(svg, 'line', {class: 'cursor', y1: upper, y2: height - lower})

    const table = element('table', place, '', 'readout'), head = element('tr', element('thead', table))
    const where = element('th', head), body = element('tbody', table), kinds = [0, 1].filter(kind => curves.some(pair => pair[kind].value.length))
    for (const kind of kinds) element('th', head, kind ? 'validation' : 'training', 'number')
    const cells = data.runs.map((name, run) => {
      const row = element('tr', body), label = element('th', row)
      label.scope = 'row'
      label.dir = 'auto'
      const key = add(label, 'svg', {viewBox: '0 0 26 12', class: `key run-${run % colours}`, 'aria-hidden': 'true'})
      add(key, 'path', {class: `run run-${run % colours} validation`, d: 'M0 6h26', 'stroke-dasharray': dashOf(run)})
      add(key, 'path', {class: `marker run-${run % colours}`, d: markerOf(run), transform: 'translate(13 6)'})
      label.append(name)
      return kinds.map(() => element('td', row, '', 'number'))
    })
    const stops = [...new Set(xs)].sort((a, b) => a - b)
    // At first where every run that is drawn still has values.
    const ends = curves.map(pair => Math.max(...pair.flatMap(each => each[axis].slice(-1)))).filter(Number.isFinite)
    let at = stops.findLastIndex(stop => stop <= Math.min(...ends))
    const nearest = (points, x) => {
      let found
      points[axis].forEach((each, k) => { if (found === undefined || Math.abs(each - x) < Math.abs(points[axis][found] - x)) found = k })
      return found === undefined || x > points[axis].at(-1) + (x1 - x0) * .05 ? undefined : points.value[found]
    }
    function tell(k) {
      at = Math.max(0, Math.min(stops.length - 1, k))
      const x = stops[at]
      cursor.setAttribute('x1', toX(x))
      cursor.setAttribute('x2', toX(x))
      where.textContent = `${axis === 'step' ? 'step' : 'tokens'} ${Math.round(x).toLocaleString('en')}`
      cells.forEach((row, run) => row.forEach((cell, k) => { cell.textContent = four(nearest(curves[run][kinds[k]], x)) }))
    }
    svg.addEventListener('pointermove', event => {
      const bounds = svg.getBoundingClientRect()
      const x = x0 + ((event.clientX - bounds.left) / bounds.width * width - left) / (width - left - right) * (x1 - x0)
      let best = 0
      stops.forEach((stop, k) => { if (Math.abs(stop - x) < Math.abs(stops[best] - x)) best = k })
      tell(best)
    })
    svg.addEventListener('keydown', event => {
      const by = {ArrowLeft: -1, ArrowRight: 1, Home: -stops.length, End: stops.length}[event.key]
      if (!by) return
      event.preventDefault()
      tell(at + by)
    })
    tell(at)
  }
  const chosen = [...document.querySelectorAll('[data-panel]')]
  const drawAll = () => {
    box.replaceChildren()
    for (const each of chosen) if (each.checked) draw(data.panels[each.dataset.panel])
  }
  for (const each of chosen) each.addEventListener('change', drawAll)
  document.querySelectorAll('[name=axis]').forEach(radio => radio.addEventListener('change', () => {
    axis = radio.value
    drawAll()
  }))
  drawAll()
}
