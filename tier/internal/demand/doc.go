// Package demand measures what the keys of a node are asked for, in fixed memory.
//
//   - A Sketch estimates the read rate of each key that matters: the hottest keys one by one, all others by a sample.
//   - A ReuseCurve estimates the miss ratio that the owned tier would have at any other size.
//
// Both use less than a megabyte together, however many keys there are. Times are ns on the cache's clock. All methods are safe for
// concurrent use.
package demand
