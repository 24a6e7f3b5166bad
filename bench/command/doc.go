// Package command is `weir bench`: it runs the scenarios of the harness on weir and shows the results. The rivals'
// compare command is the same with more systems (Options.Rivals).
//
//   - The table goes to standard output and progress to standard error.
//   - A run that is interrupted or fails shows and writes what it measured until then, and returns an error.
//   - A violated claim of the scenario is an error, after the table.
package command
