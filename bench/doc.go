// Package bench is the harness that weir's speed is measured with: callers in a fixed
// number (Load), alternating rounds and their medians (Rounds), a second process of the
// same binary (Child), the machine in a line (Machine), and the table (Table).
//
// Numbers of one machine say little about another, and numbers of one minute little about
// the next. So a measurement is always a comparison: what is measured and its floor take
// turns within one run, round by round, and the ratio is the median of the ratios of the
// rounds. A row that loses stays in the table.
//
// The rivals are in bench/rivals, a module of its own, so that this one needs none
// of them. The whole run is one command there:
//
//	go run ./speed
//
// How a cluster stands up to storms, faults and a weak origin is the work of the packages below:
// scenario (what happens), workload and trace (what is asked for), harness (running and
// measuring it), report (showing it) and command (weir bench). What one node of a large
// cluster pays is in scale.
package bench
