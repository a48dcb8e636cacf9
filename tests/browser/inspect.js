// What tests ask of a page: each question gives a list of complaints, empty where all is well.

function called(element) {
  const id = element.id ? '#' + element.id : ''
  const kind = element.classList.length ? '.' + [...element.classList].join('.') : ''
  const text = (element.textContent || '').trim().replace(/\s+/g, ' ').slice(0, 30)
  return `<${element.tagName.toLowerCase()}${id}${kind}> “${text}”`
}

function isSeen(element) {
  return element.checkVisibility({opacityProperty: true, visibilityProperty: true}) &&
    element.getClientRects().length > 0
}

// Nothing is wider than the window; what is wide scrolls inside a box of its own.
function widths() {
  const page = document.documentElement, room = page.clientWidth
  if (page.scrollWidth <= room) return []
  const wide = [...document.body.querySelectorAll('*')].filter(element => {
    if (!isSeen(element) || element.getBoundingClientRect().right <= room + 1) return false
    for (let box = element.parentElement; box && box !== document.body; box = box.parentElement)
      if (getComputedStyle(box).overflowX !== 'visible') return false
    return true
  })
  return [`the page is ${page.scrollWidth} px wide: ${wide.slice(0, 4).map(called).join(', ')}`]
}

// Colours as [r, g, b, a] with a in [0, 1], whatever way they are written.
const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true})
canvas.canvas.width = canvas.canvas.height = 1
const known = new Map()
function colour(written) {
  if (!known.has(written)) {
    const plain = /^rgba?\(([\d.]+), ([\d.]+), ([\d.]+)(?:, ([\d.]+))?\)$/.exec(written)
    if (plain) known.set(written, [...plain.slice(1, 4).map(Number), plain[4] === undefined ? 1 : Number(plain[4])])
    else {
      canvas.clearRect(0, 0, 1, 1)
      canvas.fillStyle = written
      canvas.fillRect(0, 0, 1, 1)
      const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data
      known.set(written, [r, g, b, a / 255])
    }
  }
  return known.get(written)
}
function over(front, back) {
  const a = front[3]
  return [0, 1, 2].map(i => front[i] * a + back[i] * (1 - a)).concat(1)
}
function luminance([r, g, b]) {
  const [x, y, z] = [r, g, b].map(value => {
    value /= 255
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4
  })
  return 0.2126 * x + 0.7152 * y + 0.0722 * z
}
function contrast(a, b) {
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y)
  return (high + 0.05) / (low + 0.05)
}
function behind(element) {
  const chain = []
  for (let each = element; each; each = each.parentElement) chain.unshift(each)
  let found = colour(getComputedStyle(document.documentElement).colorScheme.includes('dark') &&
    matchMedia('(prefers-color-scheme: dark)').matches ? 'rgb(18, 18, 18)' : 'rgb(255, 255, 255)')
  for (const each of chain) if (!(each instanceof SVGElement)) found = over(colour(getComputedStyle(each).backgroundColor), found)
  return found
}

// The last shape with a fill that was drawn below a text of a picture, as a reader sees it.
function shapeBehind(text, start) {
  const box = text.getBoundingClientRect(), x = box.x + box.width / 2, y = box.y + box.height / 2
  let found = start
  for (const shape of text.ownerSVGElement.querySelectorAll('rect, path, circle, polygon')) {
    if (!(shape.compareDocumentPosition(text) & Node.DOCUMENT_POSITION_FOLLOWING) || shape.closest('defs, clipPath')) continue
    const style = getComputedStyle(shape)
    if (style.fill === 'none' || style.fill.startsWith('url') || !isSeen(shape)) continue
    const place = shape.getScreenCTM()
    if (!place || !shape.isPointInFill(new DOMPoint(x, y).matrixTransform(place.inverse()))) continue
    const [r, g, b, a] = colour(style.fill)
    found = over([r, g, b, a * Number(style.fillOpacity) * Number(style.opacity)], found)
  }
  return found
}

// Every text that is seen stands out from what is behind it: 4.5 : 1 (WCAG 2.2, 1.4.3, as for small text).
function contrasts() {
  const wrong = [], told = new Set()
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement
    if (!walk.currentNode.data.trim() || /^(SCRIPT|STYLE|TITLE|DESC|NOSCRIPT|TEMPLATE|OPTION)$/i.test(element.tagName)) continue
    if (!isSeen(element) || element.closest('[aria-hidden=true].texture, :disabled')) continue
    const style = getComputedStyle(element), inPicture = element instanceof SVGElement
    let back = behind(element)
    if (inPicture) back = shapeBehind(element, back)
    let [r, g, b, a] = colour(inPicture ? style.fill : style.color)
    if (inPicture) a *= Number(style.fillOpacity)
    for (let each = element; each; each = each.parentElement) a *= Number(getComputedStyle(each).opacity)
    const found = contrast(over([r, g, b, a], back), back)
    if (found < 4.495) {
      const line = `contrast ${found.toFixed(2)} of ${inPicture ? style.fill : style.color} on rgb(${back.slice(0, 3).map(Math.round)})`
      if (!told.has(line)) wrong.push(`${line}: ${called(element)}`)
      told.add(line)
    }
  }
  return wrong.slice(0, 12)
}

const CONTROLS = 'a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex], [data-clicked]'

// A language, one first heading and none left out, names for pictures and controls, ids that occur once.
function names() {
  const wrong = [], root = document.documentElement
  if (!root.lang) wrong.push('the page has no lang')
  if (!document.title.trim()) wrong.push('the page has no title')
  const levels = [...document.querySelectorAll('h1, h2, h3, h4, h5, h6')].filter(isSeen).map(each => Number(each.tagName[1]))
  if (levels.filter(level => level === 1).length !== 1 || levels[0] !== 1) wrong.push(`headings begin ${levels.slice(0, 3)}: not with one h1`)
  levels.forEach((level, i) => { if (i && level > levels[i - 1] + 1) wrong.push(`h${levels[i - 1]} is followed by h${level}`) })
  const ids = [...document.querySelectorAll('[id]')].map(each => each.id)
  const twice = ids.filter((id, i) => ids.indexOf(id) !== i)
  if (twice.length) wrong.push(`ids that occur twice: ${[...new Set(twice)].slice(0, 5)}`)
  for (const image of document.querySelectorAll('img')) if (!image.hasAttribute('alt')) wrong.push(`a picture without alt: ${called(image)}`)
  for (const picture of document.querySelectorAll('svg'))
    if (isSeen(picture) && !picture.parentElement.closest('svg') && !picture.closest('[aria-hidden=true]') &&
        !picture.getAttribute('aria-label') && !picture.getAttribute('aria-labelledby') && !picture.querySelector(':scope > title'))
      wrong.push(`a picture without a name: ${called(picture)}`)
  for (const control of document.querySelectorAll(CONTROLS)) {
    if (!isSeen(control)) continue
    const label = control.labels?.length ? control.labels[0].textContent : ''
    const name = control.getAttribute('aria-label') || label || control.getAttribute('aria-labelledby') ||
      control.textContent || control.title || control.querySelector('img')?.alt || ''
    if (!name.trim()) wrong.push(`a control without a name: ${called(control)}`)
  }
  for (const head of document.querySelectorAll('table')) if (!head.querySelector('th')) wrong.push(`a table without heads: ${called(head)}`)
  return wrong
}

// Whatever the page took from elsewhere.
function fetched() {
  return performance.getEntriesByType('resource').map(entry => entry.name)
    .filter(name => !name.startsWith('data:') && !name.startsWith('blob:')).map(name => `fetched: ${name}`)
}

// Tab, from the top until it leaves the page. A group of radios, a grid, a toolbar or a list is one stop: arrows go on.
function prepareTabs() {
  window.reached = new Set()
  window.unseen = []
  window.plain = new Map()
  for (const each of document.querySelectorAll('*')) window.plain.set(each, ring(each))
}
function ring(element) {
  const style = getComputedStyle(element)
  return [style.outlineStyle === 'none' ? '' : style.outlineStyle + style.outlineWidth + style.outlineColor, style.boxShadow].join('|')
}
function noteFocus() {
  const now = document.activeElement
  if (!now || now === document.body || now === document.documentElement || window.reached.has(now)) return false
  window.reached.add(now)
  const shown = now.matches('input[type=radio], input[type=checkbox]') && now.labels?.length ? [now, now.labels[0]] : [now]
  if (!shown.some(each => ring(each) !== window.plain.get(each))) window.unseen.push(now)
  return true
}
function afterTabs() {
  const reached = [...window.reached]
  const groups = '[role=grid], [role=toolbar], [role=listbox], [role=tablist], [role=radiogroup], [role=tree]'
  const isReached = control => reached.some(each => each === control || control.contains(each) && !control.matches(CONTROLS)) ||
    control.hasAttribute('data-clicked') && reached.some(each => control.contains(each)) ||
    control.type === 'radio' && reached.some(each => each.type === 'radio' && each.name === control.name) ||
    control.closest('label') !== null && reached.some(each => control.closest('label').contains(each))
  const inGroup = control => {
    const group = control.closest(groups)
    return group !== null && reached.some(each => group.contains(each))
  }
  const missed = [...document.querySelectorAll(CONTROLS)].filter(control => isSeen(control) && !control.disabled &&
    !isReached(control) && !inGroup(control) && !(control.tabIndex < 0 && /^(H[1-6]|MAIN|SECTION)$/.test(control.tagName)))
  const boxes = [...document.querySelectorAll('*')].filter(box => isSeen(box) && !(box instanceof SVGElement) &&
    box !== document.documentElement && box !== document.body && /auto|scroll/.test(getComputedStyle(box).overflowX) &&
    box.scrollWidth > box.clientWidth + 1 && !reached.some(each => box.contains(each)))
  return [...missed.map(each => `not reached by Tab: ${called(each)}`), ...boxes.map(each => `scrolls, but not by keys: ${called(each)}`),
    ...window.unseen.map(each => `no visible focus: ${called(each)}`)].slice(0, 12)
}
