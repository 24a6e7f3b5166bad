// Package loglimit limits how many lines others can cause in a node's log.
//
// A stranger can make a node reject connections and packets as fast as it can send them, and each rejection is worth a
// line. A Limiter allows one line a minute for each subject, which is a host, a member or a reason:
//
//   - The first line about a subject is written at once.
//   - A Limiter remembers at most 256 subjects, because strangers choose them. While all of those are recent, lines
//     about other subjects are not written.
//   - A line that is not written is lost. What it would have counted is in the metrics.
//
// A Limiter's zero value is ready to use, and it is safe for concurrent use. The package imports no other package of
// weir.
package loglimit
