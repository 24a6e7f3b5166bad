// Package bench is the harness that measures weir's speed: a fixed number of callers (Load), alternating rounds and
// their medians (Rounds), processes (Child, StartChild, Command), a one-line description of the machine (Machine), the
// table (Table), and the form of every table (Markdown).
//
// Numbers of one machine say little about another, and numbers of one minute little about the next. So a
// measurement is always a comparison: the measured system and its floor take turns within one run, round by round,
// and the ratio is the median of the ratios of the rounds. A row that loses stays in the table.
//
// The rivals are in bench/rivals, a separate module, so that this one does not depend on them. The whole run is one
// command there:
//
//	go run ./speed
//
// The packages below measure how a cluster copes with storms, faults and a weak origin: scenario (what happens),
// workload and trace (what is requested), harness (running and measuring it), report (showing it) and command (weir
// bench). Package scale measures what one node of a large cluster pays. Package member starts the nodes and caches that
// are measured.
package bench
