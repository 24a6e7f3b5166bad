// Package workload decides what a load asks for: which keys, in which order, how large
// their values are, and what is done with them.
//
// Every choice comes from a seed, so that the same scenario asks for the same keys in the
// same order of every system that it measures. Keys are numbers below a known count; their
// names are made once (Names), so that a load allocates nothing to name one.
//
// The generators are Zipf (YCSB's scrambled Zipfian), Uniform, Hot (one key has a share of all
// requests) and Scan (all keys in order, again and again).
package workload
