'use strict';
// The status page with JavaScript: the page itself is fetched again and what differs is changed in place; charts are
// drawn; changes are asked for. Texts go in by textContent alone, markup only as maitred has written (and escaped) it.
(() => {
const EVERY = 2000, PATIENCE = 5000, POINTS = 360;
const $ = (id) => document.getElementById(id);
const page = $('page'), dialog = $('change');
let seen = Date.now(), busy = false, turn = 0, kept = null, wanted = null;

// Makes `old` like `fresh`, touching only what differs: focus, selection and scroll stay.
function morph(old, fresh) {
  if (old.hasAttribute('data-mine')) return;
  for (const {name, value} of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  for (const {name} of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  const keyed = new Map([...old.children].filter((it) => it.dataset.key).map((it) => [it.dataset.key, it]));
  const key = (node) => node && node.nodeType === 1 && node.dataset.key;
  let place = old.firstChild;
  for (const want of fresh.childNodes) {
    const fits = place && !key(place) && place.nodeName === want.nodeName ? place : null;
    const have = key(want) ? keyed.get(key(want)) : fits;
    if (!have) {
      old.insertBefore(document.importNode(want, true), place);
      continue;
    }
    if (have === place) place = place.nextSibling;
    else old.insertBefore(have, place);
    if (have.nodeType === 1) morph(have, want);
    else if (have.nodeValue !== want.nodeValue) have.nodeValue = want.nodeValue;
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

async function refresh() {
  if (busy) return;
  busy = true;
  try {
    const answer = await fetch('./', {cache: 'no-store', signal: AbortSignal.timeout(PATIENCE)});
    if (!answer.ok) throw new Error(`it answered ${answer.status}`);
    const fresh = new DOMParser().parseFromString(await answer.text(), 'text/html');
    const main = fresh.getElementById('page');
    if (!main) throw new Error('something else answers');
    if (main.dataset.version !== page.dataset.version) return location.reload();
    const focused = document.activeElement;
    morph(page, main);
    if (focused !== document.activeElement && focused.isConnected) focused.focus({preventScroll: true});
    document.title = fresh.title;
    seen = Date.now();
    $('link').hidden = true;
    if (turn++ % 5 === 0) await history();
  } catch (error) {
    lost(error);
  } finally {
    busy = false;
  }
}

// What stands on the page is old: that is the news now.
function lost(error) {
  const why = error.name === 'TimeoutError' ? 'no answer in time' : error.message;
  const text = '✕ No connection to maitred', state = $('state');
  if (state.textContent !== text) {
    state.textContent = text;
    state.className = 'state bad';
  }
  document.title = 'maitred: no connection';
  $('link').dataset.why = why;
  age();
}

function age() {
  const link = $('link');
  if (document.title !== 'maitred: no connection') return;
  link.textContent = `Last seen ${Math.round((Date.now() - seen) / 1000)} s ago (${link.dataset.why}). The figures below are old.`;
  link.hidden = false;
}

async function live() {
  if (!document.hidden) await refresh();
  setTimeout(live, EVERY);
}

const number = (it) => it === 0 ? '0' : it < 0.1 ? '< 0.1' : it < 10 ? String(+it.toFixed(1)) : Math.round(it).toLocaleString('en').replaceAll(',', '\u202f');
function bytes(it) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  for (; it >= 1024 && unit < 4; unit++) it /= 1024;
  return it === 0 ? '0' : `${+it.toFixed(it < 10 ? 1 : 0)} ${units[unit]}/s`;
}
// The next of 1, 2, 5, 10, … that is not below it; of a unit, for bytes.
function ceiling(it, base) {
  if (it <= 1) return it === 0 || base !== 10 ? 1 : [0.1, 0.2, 0.5, 1].find((step) => step >= it);
  const unit = base ** Math.floor(Math.log(it) / Math.log(base));
  const ten = 10 ** Math.floor(Math.log10(it / unit));
  return [1, 2, 5, 10].find((step) => step * ten * unit >= it) * ten * unit;
}

const CHARTS = [
  {name: 'Sessions and flows open', text: number, base: 10, lines: [['', 'sessions_active', 'one']]},
  {name: 'New sessions a second', text: number, base: 10, lines: [['', 'sessions_per_second', 'one']]},
  {name: 'Bytes a second', text: bytes, base: 1024, lines: [['received', 'received_bytes_per_second', 'one'], ['sent', 'sent_bytes_per_second', 'two-line']]},
  {name: 'Failures a second', text: number, base: 10, lines: [['', 'failures_per_second', 'one']]},
];
const LEFT = 4, RIGHT = 316, TOP = 18, BOTTOM = 92;

function element(name, attributes, text) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text) made.textContent = text;
  return made;
}

// The parts of a chart that stay; `draw` writes into them.
function build(chart) {
  const figure = document.createElement('figure'), caption = document.createElement('figcaption');
  const svg = chart.svg = element('svg', {viewBox: '0 0 320 112', role: 'img'});
  const name = document.createElement('span');
  name.textContent = chart.name;
  chart.now = chart.lines.map((_, index) => {
    const now = document.createElement('b');
    now.className = index ? 'second' : 'first';
    return now;
  });
  caption.append(name, ...chart.now);
  for (const y of [TOP, (TOP + BOTTOM) / 2, BOTTOM]) svg.append(element('line', {x1: LEFT, x2: RIGHT, y1: y, y2: y, class: 'grid'}));
  chart.most = element('text', {x: LEFT, y: TOP - 5});
  chart.cursor = element('line', {y1: TOP, y2: BOTTOM, class: 'grid', visibility: 'hidden'});
  chart.paths = chart.lines.map(([, , style]) => element('path', {class: style, 'stroke-linecap': 'round'}));
  svg.append(chart.most, chart.cursor, ...chart.paths, element('text', {x: LEFT, y: 108}, '1 h ago'),
    element('text', {x: (LEFT + RIGHT) / 2, y: 108, 'text-anchor': 'middle'}, '30 min'), element('text', {x: RIGHT, y: 108, 'text-anchor': 'end'}, 'now'));
  svg.addEventListener('pointermove', (event) => {
    const box = svg.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width * 320;
    chart.back = Math.min(POINTS - 1, Math.max(0, Math.round((RIGHT - x) / (RIGHT - LEFT) * (POINTS - 1))));
    draw(chart);
  });
  svg.addEventListener('pointerleave', () => { chart.back = null; draw(chart); });
  figure.append(caption, svg);
  $('charts').append(figure);
}

function draw(chart) {
  const across = (back) => RIGHT - back * (RIGHT - LEFT) / (POINTS - 1);
  const all = chart.lines.map(([, key]) => kept[key]);
  const top = ceiling(Math.max(...all.flat(), 0), chart.base);
  chart.most.textContent = chart.text(top);
  const back = chart.back ?? 0;
  chart.cursor.setAttribute('visibility', chart.back == null ? 'hidden' : 'visible');
  for (const end of ['x1', 'x2']) chart.cursor.setAttribute(end, across(back));
  const said = [];
  all.forEach((values, index) => {
    const points = values.map((it, at) => `${across(values.length - 1 - at).toFixed(1)} ${(BOTTOM - it / top * (BOTTOM - TOP)).toFixed(1)}`);
    chart.paths[index].setAttribute('d', points.length ? `M${points.join('L')}${points.length === 1 ? 'h.1' : ''}` : '');
    const value = values[values.length - 1 - back], name = chart.lines[index][0];
    const when = chart.back == null || index ? '' : `${Math.round(back * kept.step_seconds / 60)} min ago: `;
    chart.now[index].textContent = `${when}${name} ${value === undefined ? '–' : chart.text(value)}`.trim();
    said.push(`${name} now ${values.length ? chart.text(values[values.length - 1]) : 'unknown'}, at most ${chart.text(Math.max(...values, 0))}`);
  });
  chart.svg.setAttribute('aria-label', `${chart.name}, the last hour: ${said.join('; ')}`.replace(/ +/g, ' '));
}

async function history() {
  const select = $('of'), ask = (pool) => fetch(`api/v1/history${pool ? `?pool=${encodeURIComponent(pool)}` : ''}`, {signal: AbortSignal.timeout(PATIENCE)});
  let answer = await ask(select.value);
  // A pool that a reload removed.
  if (answer.status === 404) answer = await ask(select.value = '');
  if (!answer.ok) throw new Error(`it answered ${answer.status}`);
  kept = await answer.json();
  const options = ['', ...kept.pools];
  if (options.join('\n') !== [...select.options].map((it) => it.value).join('\n')) {
    const chosen = select.value;
    select.replaceChildren(...options.map((pool) => new Option(pool ? `pool ${pool}` : 'everything', pool)));
    select.value = chosen;
  }
  CHARTS.forEach(draw);
}

const quoted = (word) => /^[\w.:/-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;

const CHOICES = {
  drain: ['Drain it', 'It gets no new sessions, also after a reload, until somebody lifts this. Open sessions go on.'],
  maintenance: ['Take it out', 'It gets no new sessions and no probes, also after a reload, until somebody lifts this. Open sessions follow on_down of its pool. When this is lifted, it is probed at once and gets no sessions until that probe has decided.'],
  weight: ['Set the weight', 'Its share of new sessions, instead of the configured weight, until somebody lifts this; 0: none.'],
  up: ['Lift it', 'Lifts the state and the weight that were set by hand; then its probes decide. It is no longer held down for flapping, and its tier may serve again (failback).'],
};

function ask({act, pool, backend, weight}) {
  wanted = {pool, backend};
  $('ask').textContent = `Change ${backend} of pool ${pool}`;
  $('act').value = act;
  $('weight').value = weight;
  $('said').textContent = '';
  choose();
  dialog.showModal();
}

function choose() {
  const act = $('act').value, way = page.dataset.changes, [name, means] = CHOICES[act];
  $('means').textContent = means;
  $('heavy').hidden = act !== 'weight';
  $('secret').hidden = $('go').hidden = way !== 'token';
  $('command').hidden = way === 'token';
  $('command').firstChild.textContent = way === 'socket'
    ? 'This maitred accepts changes only over its unix socket (admin.token_file is not set). On its machine:'
    : 'This maitred accepts no changes: it has neither admin.socket nor admin.token_file. With either, the command would be:';
  const what = act === 'weight' ? `weight ${Number($('weight').value)}` : act;
  $('command').lastChild.textContent = `maitred backend ${what} ${quoted(wanted.pool)} ${quoted(wanted.backend)}`;
  $('go').textContent = name;
}

async function send(event) {
  event.preventDefault();
  const {pool, backend} = wanted, act = $('act').value, said = $('said');
  const change = act === 'weight' ? {weight: Number($('weight').value)} : {state: act};
  $('go').disabled = true;
  said.className = '';
  said.textContent = 'Asking …';
  try {
    const answer = await fetch(`api/v1/pools/${encodeURIComponent(pool)}/backends/${encodeURIComponent(backend)}`, {
      method: 'PATCH',
      headers: {authorization: `Bearer ${$('token').value.trim()}`, 'content-type': 'application/json'},
      body: JSON.stringify(change),
      signal: AbortSignal.timeout(PATIENCE),
    });
    if (!answer.ok) throw new Error(`Nothing was changed (${answer.status}): ${await reason(answer)}`);
    dialog.close();
    await refresh();
  } catch (error) {
    said.className = 'error';
    said.textContent = error.message;
  } finally {
    $('go').disabled = false;
  }
}

async function reason(answer) {
  const text = (await answer.text()).trim();
  try {
    return JSON.parse(text).error ?? text;
  } catch {
    return text || answer.statusText;
  }
}

document.documentElement.classList.add('js');
CHARTS.forEach(build);
page.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-act]');
  if (button) ask(button.dataset);
});
$('of').addEventListener('change', () => history().catch(lost));
dialog.querySelector('form').addEventListener('submit', send);
for (const id of ['act', 'weight']) $(id).addEventListener('input', choose);
$('close').addEventListener('click', () => dialog.close());
document.addEventListener('visibilitychange', () => { if (!document.hidden) refresh(); });
setInterval(age, 1000);
live();
})();
