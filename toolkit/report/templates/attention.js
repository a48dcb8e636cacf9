{
  // One head's map large, every head's small; what is chosen moves through the text, the series, the map and the grid.
  const data = JSON.parse(document.getElementById('data').textContent)
  const crossed = data.readers.length > 0  // a target that reads a source, not a text itself
  const readers = crossed ? data.readers : data.labels, m = readers.length, n = data.labels.length
  const layers = data.weights.length, heads = data.weights[0].length, full = 65535
  const byId = id => document.getElementById(id), map = byId('map'), told = byId('told')
  const which = map.closest('section').querySelector('h2')
  const layerList = byId('layer'), headList = byId('head'), stretch = byId('stretch')
  const places = [...document.querySelectorAll('[data-place]')]
  const of = {reads: crossed ? places.filter(place => place.dataset.side === 'reads') : places,
              read: crossed ? places.filter(place => place.dataset.side === 'read') : places}
  const cells = [...document.querySelectorAll('#heads td')]
  const cut = label => label.length > 16 ? label.slice(0, 15) + '…' : label
  const quoted = (k, side) => `“\u2068${(side === 'reads' ? readers : data.labels)[k]}\u2069”`  // from whichever side
  const say = (k, side) => `${quoted(k, side)} (${data.what} ${k + 1})`

  const kept = new Map()  // a head's weights, or the mean of a layer's
  function weightsOf(layer, head) {
    const key = `${layer},${head}`
    if (!kept.has(key)) {
      const found = new Float32Array(m * n), over = layer === 'mean' ? data.weights : [data.weights[layer]]
      const several = over.flatMap(row => head === 'mean' ? row : [row[head]])
      for (const each of several) {
        const raw = atob(each)
        for (let i = 0; i < m * n; i++)
          found[i] += (raw.charCodeAt(2 * i) | raw.charCodeAt(2 * i + 1) << 8) / full / several.length
      }
      kept.set(key, found)
    }
    return kept.get(key)
  }

  let ramp
  function readColours() {
    const style = getComputedStyle(document.documentElement)
    const [low, mid, high] = ['--low', '--mid', '--high'].map(name => {
      const value = style.getPropertyValue(name).trim()
      return [1, 3, 5].map(at => parseInt(value.slice(at, at + 2), 16))
    })
    ramp = Array.from({length: 256}, (_, k) => {
      const [from, to, share] = k < 128 ? [low, mid, k / 127.5] : [mid, high, k / 127.5 - 1]
      return from.map((value, i) => Math.round(value + share * (to[i] - value)))
    })
  }
  const shade = (weight, top) => Math.sqrt(Math.min(1, weight / top))
  function draw(canvas, weights, top) {
    const context = canvas.getContext('2d'), picture = context.createImageData(n, m)
    for (let i = 0; i < m * n; i++) {
      const [r, g, b] = ramp[Math.round(255 * shade(weights[i], top))]
      picture.data.set([r, g, b, 255], 4 * i)
    }
    context.putImageData(picture, 0, 0)
  }

  // The large map.
  const cell = Math.max(6, Math.min(24, Math.floor(640 / Math.max(m, n)))), every = Math.ceil(11 / cell)
  const margin = 30 + 7 * Math.min(16, Math.max(...readers.map(label => label.length), ...data.labels.map(label => label.length)))
  function add(kind, attributes, text = '') {
    const made = document.createElementNS('http://www.w3.org/2000/svg', kind)
    for (const name in attributes) made.setAttribute(name, attributes[name])
    made.textContent = text
    return map.appendChild(made)
  }
  const wide = n * cell, high = m * cell, large = document.createElement('canvas')
  large.width = n
  large.height = m
  map.setAttribute('width', margin + wide + 2)
  map.setAttribute('height', margin + high + 2)
  const picture = add('image', {x: margin, y: margin, width: wide, height: high, preserveAspectRatio: 'none'})
  add('rect', {class: 'edge', x: margin, y: margin, width: wide, height: high})
  add('text', {class: 'axis', x: margin, y: 12}, 'is read →')
  add('text', {class: 'axis', transform: `translate(12 ${margin}) rotate(-90)`, 'text-anchor': 'end'}, crossed ? '← is written' : '← reads')
  const rows = [], columns = []
  readers.forEach((label, i) => {
    if (i % every === 0)
      rows[i] = add('text', {x: margin - 5, y: margin + (i + .5) * cell + 4, 'text-anchor': 'end'}, cut(label))
  })
  data.labels.forEach((label, i) => {
    if (i % every) return
    const at = margin + (i + .5) * cell
    columns[i] = add('text', {transform: `translate(${at + 4} ${margin - 5}) rotate(-90)`}, cut(label))
  })
  const frame = add('rect', {class: 'chosen', width: cell, height: cell})

  const state = {...data.opens, side: 'reads'}  // layer, head, reader, read
  let weights, top
  function point(reader, read) {
    state.reader = reader
    state.read = read
    const reads = state.side === 'reads', own = reads ? reader : read
    const shares = (reads ? data.labels : readers).map((_, k) => reads ? weights[own * n + k] : weights[k * n + own])
    const mark = (list, k) => list.forEach((label, at) => label.classList.toggle('on', at === k))
    mark(rows, reader)
    mark(columns, read)
    frame.setAttribute('x', margin + read * cell)
    frame.setAttribute('y', margin + reader * cell)
    const other = reads ? 'read' : 'reads'
    if (crossed) {  // each list keeps one word within reach of Tab
      of[state.side].forEach(place => place.style.setProperty('--share', 0))
      of[other].forEach((place, k) => {
        place.classList.remove('on')
        place.setAttribute('aria-selected', false)
        place.tabIndex = k === (reads ? read : reader) ? 0 : -1
      })
    }
    of[state.side].forEach((place, k) => {
      place.classList.toggle('on', k === own)
      place.setAttribute('aria-selected', k === own)
      place.tabIndex = k === own ? 0 : -1
    })
    of[other].forEach((place, k) => place.style.setProperty('--share', shade(shares[k], top).toFixed(3)))
    if (data.spans.length) {
      const band = document.querySelector('#series .reader'), patch = places[own]
      band.setAttribute('x', patch.getAttribute('x'))
      band.setAttribute('width', patch.getAttribute('width'))
    }
    const most = [...shares.keys()].sort((a, b) => shares[b] - shares[a]).slice(0, 4)
    told.textContent = `${say(reader, 'reads')} reads ${say(read, 'read')} with ${weights[reader * n + read].toFixed(4)}. ` +
      (reads ? 'It reads most: ' : `${say(read, 'read')} is read most by: `) +
      most.map(k => `${quoted(k, other)} ${shares[k].toFixed(top < .1 ? 4 : 2)}`).join(', ') + '.'
  }
  // A reader, or in the other direction what is read: the heaviest weight with it.
  function choose(k) {
    const reads = state.side === 'reads'
    const shares = (reads ? data.labels : readers).map((_, j) => weights[reads ? k * n + j : j * n + k])
    const heaviest = shares.indexOf(Math.max(...shares))
    point(reads ? k : heaviest, reads ? heaviest : k)
  }
  function show(layer, head) {
    state.layer = layer
    state.head = head
    weights = weightsOf(layer, head)
    top = stretch.checked ? weights.reduce((a, b) => Math.max(a, b)) || 1 : 1
    draw(large, weights, top)
    picture.setAttribute('href', large.toDataURL())
    byId('ticks').replaceChildren(...[0, .25, .5, .75, 1].map(share => {
      const tick = document.createElement('span')
      tick.textContent = (share * share * top).toFixed(top < .1 ? 4 : share && share < 1 || top < 1 ? 2 : 0)
      return tick
    }))
    layerList.value = layer
    headList.value = head
    if (!crossed || layers * heads > 1)
      which.textContent = (layer === 'mean' ? 'Mean over layers' : `Layer ${layer + 1}`) +
        (heads === 1 && crossed ? '' : `, ${head === 'mean' ? 'mean over heads' : `head ${head + 1}`}`)
    cells.forEach(each => {
      const chosen = each.dataset.layer === String(layer) && each.dataset.head === String(head)
      each.setAttribute('aria-selected', chosen)
      each.tabIndex = chosen ? 0 : -1
    })
    if (layer === 'mean' && cells.length) cells[0].tabIndex = 0  // none is of all layers; Tab still reaches them
    point(state.reader, state.read)
  }
  const drawAll = () => {
    readColours()
    cells.forEach(each => {
      const head = each.dataset.head === 'mean' ? 'mean' : Number(each.dataset.head)
      draw(each.querySelector('canvas'), weightsOf(Number(each.dataset.layer), head), data.top)
    })
    show(state.layer, state.head)
  }

  // By mouse and by keys.
  const step = {ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1}
  const chosenHead = each => show(Number(each.dataset.layer), each.dataset.head === 'mean' ? 'mean' : Number(each.dataset.head))
  const chosen = list => list.value === 'mean' ? 'mean' : Number(list.value)
  const reselect = () => show(chosen(layerList), chosen(headList))
  layerList.addEventListener('change', reselect)
  headList.addEventListener('change', reselect)
  stretch.addEventListener('change', reselect)
  document.querySelectorAll('[name=side]').forEach(radio => radio.addEventListener('change', () => {
    const own = state.side === 'reads' ? state.reader : state.read
    state.side = radio.value
    choose(own)
  }))
  const lists = crossed ? [of.reads, of.read] : [places]
  lists.forEach((list, number) => list.forEach((place, k) => {
    const choosePlace = () => {
      if (crossed) state.side = number ? 'read' : 'reads'
      choose(k)
    }
    for (const kind of ['mouseenter', 'click', 'focus']) place.addEventListener(kind, choosePlace)
    place.addEventListener('keydown', event => {
      const next = event.key === 'Home' ? 0 : event.key === 'End' ? list.length - 1 : k + step[event.key]
      if (!(next >= 0 && next < list.length)) return
      event.preventDefault()
      list[next].focus()
    })
  }))
  cells.forEach((each, k) => {
    each.addEventListener('click', () => {
      chosenHead(each)
      which.scrollIntoView({behavior: matchMedia('(prefers-reduced-motion: reduce)').matches ? 'auto' : 'smooth'})
    })
    each.addEventListener('keydown', event => {
      const across = heads > 1 ? heads + 1 : 1
      const by = {ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across}[event.key]
      if (event.key === 'Enter') each.click()
      if (!by || !cells[k + by]) return
      event.preventDefault()
      cells[k + by].focus()
      chosenHead(cells[k + by])
    })
  })
  map.addEventListener('mousemove', event => {
    const box = map.getBoundingClientRect()
    const [j, i] = [event.clientX - box.left, event.clientY - box.top].map(at => Math.floor((at - margin) / cell))
    if (i >= 0 && i < m && j >= 0 && j < n) point(i, j)
  })
  map.addEventListener('keydown', event => {
    const down = {ArrowUp: -1, ArrowDown: 1}[event.key] ?? 0, right = {ArrowLeft: -1, ArrowRight: 1}[event.key] ?? 0
    if (!down && !right) return
    event.preventDefault()
    const inside = (k, count) => Math.max(0, Math.min(count - 1, k))
    point(inside(state.reader + down, m), inside(state.read + right, n))
  })
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', drawAll)
  drawAll()
  choose(state.reader)
}
