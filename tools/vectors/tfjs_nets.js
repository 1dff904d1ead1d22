// Makes nets with TensorFlow.js as it saves them, with inputs and its predictions: FOLDER/NAME/model.json, shards,
// ids.txt and expected.txt, a sample on a line.
//
//     npm install @tensorflow/tfjs
//     node tools/vectors/tfjs_nets.js tests/data/tfjs 4 small        (what make test reads)
//     node tools/vectors/tfjs_nets.js FOLDER 100                     (more and larger ones, for tests/nets.py)
'use strict';
const fs = require('fs');
const path = require('path');
const tf = require('@tensorflow/tfjs');

const [folder, count, small] = process.argv.slice(2);
const VOCAB = 11, STEPS = 7, WIDTH = 5;

let state = 20261127;                   // a generator of our own, so that the files can be made again
function uniform() {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return state / 2 ** 31 - 1;
}
const L = tf.layers;
const embedding = () => L.embedding({inputDim: VOCAB, outputDim: WIDTH, inputLength: STEPS});

function graph() {                      // the shape of nn-sentiment
  const input = tf.input({shape: [STEPS]});
  let x = L.embedding({inputDim: VOCAB, outputDim: WIDTH}).apply(input);
  x = L.bidirectional({layer: L.gru({units: 4, returnSequences: true}), mergeMode: 'concat'}).apply(x);
  const pools = [L.globalAveragePooling1d({}).apply(x), L.globalMaxPooling1d().apply(x)];
  x = L.dropout({rate: 0.5}).apply(L.concatenate().apply(pools));
  x = L.add().apply([L.dense({units: 16, activation: 'selu'}).apply(x), x, L.batchNormalization().apply(x)]);
  return tf.model({inputs: input, outputs: L.dense({units: 3, activation: 'softmax'}).apply(x)});
}
const nets = {
  graph,
  stacked: () => tf.sequential({layers: [embedding(), L.lstm({units: 6, returnSequences: true}),
    L.lstm({units: 4, recurrentActivation: 'sigmoid', returnSequences: true, goBackwards: true}),
    L.gru({units: 4, recurrentActivation: 'sigmoid', returnSequences: true}), L.layerNormalization(),
    L.simpleRNN({units: 3, activation: 'softsign'}), L.dense({units: 2, useBias: false})]}),
  sequences: () => tf.sequential({layers: [embedding(),
    L.bidirectional({layer: L.lstm({units: 3, returnSequences: true}), mergeMode: 'ave'}),
    L.timeDistributed({layer: L.dense({units: 4, activation: 'relu6'})}), L.flatten(),
    L.dense({units: 6, activation: 'hardSigmoid'}), L.dense({units: 4, activation: 'softplus'}),
    L.dense({units: 3, activation: 'elu'}), L.activation({activation: 'tanh'})]}),
};
if (!small) nets.classic = () => tf.sequential({layers: [
  L.embedding({inputDim: 10000, outputDim: 32, inputLength: 50}), L.lstm({units: 128}),
  L.dense({units: 1, activation: 'sigmoid'})]});

function randomize(model, scale) {
  model.setWeights(model.weights.map(w => {
    const n = w.shape.reduce((a, b) => a * b, 1), variance = w.name.endsWith('variance');
    return tf.tensor(Float32Array.from({length: n}, () => variance ? 1.1 + uniform() : uniform() * scale), w.shape);
  }));
}
// The weights as one of the converter's quantized types: see TensorFlow.js, io/types.ts.
function quantize(spec, values, type) {
  if (type === 'float16') {
    spec.quantization = {dtype: type};
    return Uint16Array.from(values, v => {                // exact for the values below, which have few digits
      const f = new Uint32Array(Float32Array.of(v).buffer)[0], e = (f >>> 23 & 255) - 112;
      return v === 0 || e < 1 ? 0 : f >>> 16 & 0x8000 | e << 10 | f >>> 13 & 0x3ff;
    });
  }
  const min = values.reduce((a, b) => Math.min(a, b)), most = type === 'uint8' ? 255 : 65535, scale = (values.reduce((a, b) => Math.max(a, b)) - min) / most || 1;
  spec.quantization = {dtype: type, min, scale};
  return (type === 'uint8' ? Uint8Array : Uint16Array).from(values, v => Math.round((v - min) / scale));
}
async function artifacts(model, type) {
  let kept;
  await model.save(tf.io.withSaveHandler(async a => { kept = a; return {modelArtifactsInfo: {dateSaved: new Date()}}; }));
  if (!type) return {topology: kept.modelTopology, specs: kept.weightSpecs, data: Buffer.from(kept.weightData)};
  const parts = [];
  let at = 0;
  for (const spec of kept.weightSpecs) {
    const n = spec.shape.reduce((a, b) => a * b, 1);
    const q = quantize(spec, new Float32Array(kept.weightData.slice(at, at + 4 * n)), type);
    parts.push(Buffer.from(q.buffer));
    at += 4 * n;
  }
  return {topology: kept.modelTopology, specs: kept.weightSpecs, data: Buffer.concat(parts)};
}
async function save(name, build, type) {
  const model = build(), out = path.join(folder, name);
  randomize(model, name === 'classic' ? 0.2 : 0.7);        // more makes an LSTM of 128 chaotic
  const a = await artifacts(model, type);
  const loaded = await tf.loadLayersModel(tf.io.fromMemory({modelTopology: a.topology, weightSpecs: a.specs,
    weightData: a.data.buffer.slice(a.data.byteOffset, a.data.byteOffset + a.data.length)}));
  const [steps, vocab] = name === 'classic' ? [50, 10000] : [STEPS, VOCAB];
  const ids = Array.from({length: Number(count)}, () =>
    Array.from({length: steps}, () => Math.floor((uniform() + 1) / 2 * vocab)));
  const y = await loaded.predict(tf.tensor2d(ids, [ids.length, steps])).array();
  fs.mkdirSync(out, {recursive: true});
  const middle = Math.floor(a.data.length / 2) + 1, shards = ['group1-shard1of2.bin', 'group1-shard2of2.bin'];
  fs.writeFileSync(path.join(out, shards[0]), a.data.subarray(0, middle));
  fs.writeFileSync(path.join(out, shards[1]), a.data.subarray(middle));
  fs.writeFileSync(path.join(out, 'model.json'), JSON.stringify({format: 'layers-model',
    generatedBy: 'TensorFlow.js ' + tf.version.tfjs, modelTopology: a.topology,
    weightsManifest: [{paths: shards, weights: a.specs}]}));
  fs.writeFileSync(path.join(out, 'ids.txt'), ids.map(row => row.join(',')).join('\n') + '\n');
  fs.writeFileSync(path.join(out, 'expected.txt'), y.map(row => row.join(' ')).join('\n') + '\n');
  console.log(name, y[0]);
}
(async () => {
  await tf.setBackend('cpu');
  for (const name in nets) await save(name, nets[name]);
  for (const type of ['float16', 'uint16', 'uint8'])
    if (!small || type === 'uint8') await save(type, nets.graph, type);
})();
