// Package simtime runs tests with virtual time. Tests of every package call it instead of synctest.Test, and only tests
// may import it; package peertest adds what a test with nodes needs (Bubble).
package simtime
