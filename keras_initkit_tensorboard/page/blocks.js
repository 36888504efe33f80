// Layers as a tree: by their paths and by prefixes such as `block_1_` that neighbors share.

/** The blocks that a name stands in: `block_1_expand` -> `block_1`, `encoder/dense` -> `encoder`. */
export function blocksOf(name) {
  const found = [], path = name.split("/");
  const own = path.pop();
  let before = "";
  for (const part of path) found.push((before += (before && "/") + part));
  let start = before ? before + "/" : "", words = [];
  for (const word of own.split("_").slice(0, -1)) {
    words.push(word);
    if (!/\d$/.test(word)) continue;
    found.push(start + words.join("_"));
    start += words.join("_") + "_";
    words = [];
  }
  return found;
}

/** A tree of `{name, children}` and `{name, layer}`, in the order of the layers. A block has at least two members. */
export function makeTree(layers) {
  const grow = (names, depth) => {
    const nodes = [];
    for (let i = 0; i < names.length; ) {
      const block = names[i].blocks[depth];
      let end = i + 1;
      while (block !== undefined && end < names.length && names[end].blocks[depth] === block) end++;
      const members = names.slice(i, end);
      if (block === undefined) nodes.push({name: names[i].name, layer: names[i].name});
      else if (end - i === 1 || end - i === names.length) nodes.push(...grow(members, depth + 1)); // no choice to show
      else nodes.push({name: block, children: grow(members, depth + 1), members: members.map(({name}) => name)});
      i = end;
    }
    return nodes;
  };
  return grow(layers.map((name) => ({name, blocks: blocksOf(name)})), 0);
}

/** The rows that are shown: blocks and layers, without what is folded or not searched for. */
export function listRows(tree, folded, search) {
  const rows = [], wanted = search.toLowerCase();
  const walk = (nodes, depth, inside) => {
    for (const node of nodes) {
      if (node.layer !== undefined) {
        if (!wanted || node.name.toLowerCase().includes(wanted)) rows.push({name: node.name, layer: node.layer, members: [node.layer], depth, block: inside});
        continue;
      }
      const members = wanted ? node.members.filter((name) => name.toLowerCase().includes(wanted)) : node.members;
      if (!members.length) continue;
      const isFolded = !wanted && folded.has(node.name);
      rows.push({name: node.name, members, depth, isBlock: true, isFolded, block: node.name});
      if (!isFolded) walk(node.children, depth + 1, node.name);
    }
  };
  walk(tree, 0, null);
  return rows;
}

/** Names of all blocks. */
export function listBlocks(nodes) {
  return nodes.flatMap((node) => (node.children ? [node.name, ...listBlocks(node.children)] : []));
}
