// Package wiretest has what the tests of peer and of peer/internal/wire share: handlers that answer from a function, frames
// that a test writes and reads by hand, and a bound on what a function allocates. Only tests
// import it.
//
// Nothing here sleeps for a fixed time: Until and WantLog poll, and every read has a deadline of a minute, so that a test
// whose frame or log line never comes fails instead of hanging.
package wiretest
