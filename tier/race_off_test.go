//go:build !race

package tier

// raceOn reports whether the race detector is on, which allocates memory of its own.
const raceOn = false
