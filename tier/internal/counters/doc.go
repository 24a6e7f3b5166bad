// Package counters counts what a cache does: reads, loads, copies that move, and the calls to dependencies.
//
// Invariants:
//
//   - A counter only rises, so a rate is the difference of two readings. NearUnused is the exception: it takes back hits
//     that the near tier has counted.
//   - Counting takes no lock but two: the ledger's for a load that begins or ends, and that of the dependencies.
//   - Nothing here grows with what has gone: at most MaxSteps dependencies are counted on their own, durations have a
//     fixed number of buckets, and rates look back over a fixed number of marks.
//   - Times are in ns on the cache's clock, which the caller passes in.
//
// A Histogram has buckets of equal width on a logarithmic scale: its quantiles are accurate to about a tenth, whatever
// the durations are, and it can be scraped as a native histogram of Prometheus.
//
// All types are safe for concurrent use, except Batch and Tally.
package counters
