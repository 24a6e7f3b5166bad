// Package workload decides what a load requests: which keys, in which order, how large their values are, and which
// operations.
//
// Every choice comes from a seed, so that the same scenario sends the same requests in the same order to every
// system that it measures. Keys are numbers below a known count. Their names are made once (Names), so that a load
// does not allocate to name a key.
//
// The generators are Zipf (YCSB's scrambled Zipfian), Uniform, Hot (one key has a share of all requests) and Scan
// (all keys in order, repeatedly).
package workload
