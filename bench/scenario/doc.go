// Package scenario is what a run of the harness does, as one readable YAML file: the cluster,
// the origin behind it, the load and the faults.
//
// Parse reads one. A key that is misspelt, a value that makes no sense and a fault on a node
// that there is not are all refused at once, each with its line. What a scenario leaves out
// has a default, which Scenario.YAML writes out in full.
//
// The built-in scenarios are embedded: Builtin gives one, Builtins lists them.
package scenario
