package harness

import (
	"encoding/binary"
	"fmt"
	"time"
)

// header is the size of the prefix of each value: the number of its key, the origin's version, and when its load
// began, in nanoseconds since the run's start. So every answer of any system shows how old it is and whether it is
// the right one.
const header = 24

// makeValue makes a value of n bytes, which must be at least header.
func makeValue(n int, key int, version uint64, began time.Duration) []byte {
	b := make([]byte, max(n, header))
	binary.LittleEndian.PutUint64(b, uint64(key))
	binary.LittleEndian.PutUint64(b[8:], version)
	binary.LittleEndian.PutUint64(b[16:], uint64(began))
	x := uint64(key)*0x9E3779B97F4A7C15 + 1 // incompressible
	for i := header; i+8 <= len(b); i += 8 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		binary.LittleEndian.PutUint64(b[i:], x)
	}
	return b
}

// readValue is the inverse of makeValue, and checks that the value belongs to key.
func readValue(b []byte, key int) (version uint64, began time.Duration, err error) {
	if len(b) < header {
		return 0, 0, fmt.Errorf("harness: an answer of %d bytes for key %d", len(b), key)
	}
	if got := binary.LittleEndian.Uint64(b); got != uint64(key) {
		return 0, 0, fmt.Errorf("harness: the value of key %d for key %d", got, key)
	}
	return binary.LittleEndian.Uint64(b[8:]), time.Duration(binary.LittleEndian.Uint64(b[16:])), nil
}
