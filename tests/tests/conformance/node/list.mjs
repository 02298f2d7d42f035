// Prints what the suite says about its tests: id, kind, and on which others each depends.
// Run in the suite's folder.
import { pathToFileURL } from 'node:url'

const load = async (path) => (await import(pathToFileURL(path))).default
const suites = [...await load('tests/index.mjs'), await load('tests/surrogate-control.mjs')]
const tests = suites.flatMap((suite) => suite.tests
  .filter((test) => !test.browser_only)
  .map((test) => ({
    id: test.id,
    suite: suite.id,
    kind: test.kind ?? 'required',
    depends_on: test.depends_on ?? []
  })))
console.log(JSON.stringify(tests))
