// Package scenario describes a run of the harness in one readable YAML file: the cluster, the origin behind it, the
// load and the faults.
//
// Parse reads a scenario. It rejects misspelt keys all at once, each with its line, and invalid values and faults on
// nonexistent nodes all at once, each with its path. Omitted settings have defaults, which Scenario.YAML writes out in full.
//
// The built-in scenarios are embedded: Builtin returns one, Names lists them.
package scenario
