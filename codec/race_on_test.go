//go:build race

package codec

// raceOn says that the race detector is on, which makes allocations of its own.
const raceOn = true
