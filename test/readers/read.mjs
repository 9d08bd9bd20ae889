// Reads a lake directory with hyparquet and prints what it holds as JSON, in the form that readers_test.go compares.
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parquetMetadata, parquetReadObjects, parquetSchema } from 'hyparquet'
import { compressors } from 'hyparquet-compressors'

function parquetFiles(dir) {
  return readdirSync(dir, { recursive: true }).filter(f => f.endsWith('.parquet')).sort().map(f => join(dir, f))
}

async function read(path) {
  const bytes = readFileSync(path)
  const file = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength)
  const rows = await parquetReadObjects({ file, compressors })
  const types = {}
  for (const c of parquetSchema(parquetMetadata(file)).children) {
    types[c.element.name] = c.element.logical_type?.type ?? c.element.type
  }
  return { rows, types }
}

async function samples(dir) {
  const perSignal = new Map()
  const partitions = {}
  let types
  for (const path of parquetFiles(dir)) {
    const day = String(Number(/day=(\d+)/.exec(path)[1]))
    const { rows, types: fileTypes } = await read(path)
    partitions[day] = (partitions[day] ?? 0) + rows.length
    types = Object.fromEntries(['ts', 'value', 'signal', 'text', 'site'].map(n => [n, fileTypes[n]]))
    for (const r of rows) {
      if (!perSignal.has(r.signal)) perSignal.set(r.signal, [])
      perSignal.get(r.signal).push([r.ts.getTime(), r.value])
    }
  }
  const signals = {}
  for (const [name, rows] of perSignal) {
    rows.sort((a, b) => a[0] - b[0])
    const values = rows.map(r => r[1])
    signals[name] = {
      n: rows.length, min: Math.min(...values), max: Math.max(...values), sum: values.reduce((a, b) => a + b, 0),
      first: values.slice(0, 20), from: rows[0][0], to: rows[rows.length - 1][0],
    }
  }
  return { types, partitions, signals }
}

async function messages(dir) {
  const out = []
  for (const path of parquetFiles(dir)) {
    for (const r of (await read(path)).rows) {
      const clean = {}
      for (let [name, value] of Object.entries(r)) {
        if (value === null || value === undefined) continue
        if (value instanceof Date) value = value.getTime()
        else if (typeof value === 'bigint') value = String(value)
        clean[name] = value
      }
      out.push(clean)
    }
  }
  return out.sort((a, b) => Number(a._seq) - Number(b._seq))
}

const root = process.argv[2]
const report = { ...await samples(join(root, 'samples')), messages: await messages(join(root, 'messages')) }
process.stdout.write(JSON.stringify(report))
