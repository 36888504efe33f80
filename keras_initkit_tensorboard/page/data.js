// What the server answers. Addresses are relative to the page's base, which TensorBoard sets to this plugin.

async function ask(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`TensorBoard answered ${answer.status}: ${(await answer.text()).slice(0, 300)}`);
  return answer;
}

/** The runs that hold statistics of layers. */
export async function getRuns() {
  return (await (await ask("runs")).json()).items;
}

/** All statistics and histograms of one layer. */
export async function getLayer(run, layer) {
  return (await ask(`layer?${new URLSearchParams({run, layer})}`)).json();
}

/** One statistic of all layers; at most `points` steps for a first look. */
export async function getMatrix(run, statistic, points) {
  const asked = new URLSearchParams({run, statistic, ...(points ? {points} : {})});
  return decode(await (await ask(`matrix?${asked}`)).arrayBuffer());
}

/** Length of the header, header as JSON, values by layer: NaN where there is no point, infinity where one is not finite. */
export function decode(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const values = new Float32Array(buffer, 4 + length);
  return {...header, values, width: header.steps.length, rowOf: new Map(header.layers.map((layer, i) => [layer, i]))};
}

/** Index of the last step that is not after `step`; the first where all are. */
export function columnOf(steps, step) {
  let low = 0, high = steps.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (steps[middle] <= step) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** What is not there of what is shown, in words: runs that are gone, steps that TensorBoard left out. */
export function missingIn(panels, gone) {
  const empty = panels.filter(({matrix}) => !matrix.layers.length).map(({run}) => run);
  const texts = [...gone, ...empty].map((run) => `Run ${run} is not in this log (any more).`);
  const thinned = panels.filter(({matrix}) => matrix.thinned).map(({run, matrix: {thinned: {shown, measured}}}) => `${run}: ${shown} ${measured ? `of ${measured} measured steps are shown` : "steps are shown, and there may be more"}.`);
  if (thinned.length) texts.push(...thinned, "TensorBoard keeps no more of a tag; start it with --samples_per_plugin=scalars=0 to see all.");
  return texts.join(" ");
}

/** TensorBoard's messages to its plugins: calls `reload` when it has read the logs again. */
export function onReload(reload) {
  if (window.parent === window) return;
  const {port1, port2} = new MessageChannel();
  port1.onmessage = (event) => {
    const {type, id, isReply} = JSON.parse(event.data);
    if (isReply) return;
    if (type === "experimental.DataReloaded") reload();
    port1.postMessage(JSON.stringify({type, id, payload: null, error: null, isReply: true}));
  };
  window.parent.postMessage("experimental.bootstrap", window.location.origin, [port2]);
}
