'use strict'
// Tables that can be sorted, searched and filtered. Without a script they are tables still.
function makeSortable(box) {
  const table = box.querySelector('table'), body = table.tBodies[0], rows = [...body.rows]
  const heads = [...table.tHead.rows[0].cells], controls = document.createElement('div')
  const collator = new Intl.Collator([], {numeric: true, sensitivity: 'base'})
  const text = (row, place) => row.cells[place].textContent
  const count = document.createElement('span'), chosen = new Map()
  controls.className = 'controls'
  count.setAttribute('role', 'status')
  const labelled = (name, control) => {
    const label = document.createElement('label')
    label.append(name + ' ', control)
    controls.append(label)
    return control
  }
  const search = labelled('Search', document.createElement('input'))
  search.type = 'search'
  const select = () => {
    const words = search.value.toLocaleLowerCase().split(/\s+/).filter(Boolean)
    let shown = 0
    for (const row of rows) {
      const all = row.textContent.toLocaleLowerCase()
      const fits = words.every(word => all.includes(word))
        && [...chosen].every(([place, value]) => !value || text(row, place) === value)
      row.hidden = !fits
      shown += fits
    }
    count.textContent = shown === rows.length ? `${rows.length} rows` : `${shown} of ${rows.length} rows`
  }
  search.addEventListener('input', select)
  heads.forEach((head, place) => {
    const name = head.textContent, button = document.createElement('button')
    if (head.hasAttribute('data-filter')) {
      const list = labelled(name, document.createElement('select'))
      list.append(new Option('all', ''))
      for (const value of [...new Set(rows.map(row => text(row, place)))].sort(collator.compare))
        list.append(new Option(value, value))
      list.addEventListener('change', () => { chosen.set(place, list.value); select() })
    }
    button.type = 'button'
    button.textContent = name || 'name'
    head.replaceChildren(button)
    button.addEventListener('click', () => {
      const numeric = head.classList.contains('number'), before = head.getAttribute('aria-sort')
      const up = before ? before === 'descending' : !numeric
      heads.forEach(other => other.removeAttribute('aria-sort'))
      head.setAttribute('aria-sort', up ? 'ascending' : 'descending')
      const key = row => row.cells[place].hasAttribute('data-key') ? Number(row.cells[place].dataset.key) : -Infinity
      const order = numeric ? (a, b) => key(a) === key(b) ? 0 : key(a) < key(b) ? -1 : 1
        : (a, b) => collator.compare(text(a, place), text(b, place))
      body.append(...rows.sort((a, b) => up ? order(a, b) : order(b, a)))
    })
  })
  controls.append(count)
  box.prepend(controls)
  select()
}
document.querySelectorAll('[data-sortable]').forEach(makeSortable)
// What is wider than its box can be reached and moved by keyboard.
const reach = () => document.querySelectorAll('.scroll').forEach(box => {
  if (box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight) box.tabIndex = 0
  else box.removeAttribute('tabindex')
})
addEventListener('resize', reach)
reach()
