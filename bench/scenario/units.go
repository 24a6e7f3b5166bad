package scenario

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// A Duration is a time.Duration in the notation "1.5s".
type Duration time.Duration

// UnmarshalText reads the notation of time.ParseDuration.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("%q is no duration: write a number with a unit, such as 250ms or 1.5s", b)
	}
	*d = Duration(v)
	return nil
}

// MarshalText writes what UnmarshalText reads.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// String returns Go's notation of the duration.
func (d Duration) String() string { return time.Duration(d).String() }

// Bytes is a number of bytes, optionally with a unit: "64MiB", "4KiB", "300".
type Bytes int64

var units = []struct {
	name string
	size int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"kB", 1e3}, {"B", 1}}

// UnmarshalText reads a number with or without a unit.
func (n *Bytes) UnmarshalText(b []byte) error {
	s, size := strings.TrimSpace(string(b)), int64(1)
	for _, u := range units {
		if rest, ok := strings.CutSuffix(s, u.name); ok {
			s, size = strings.TrimSpace(rest), u.size
			break
		}
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(v) || math.Abs(v)*float64(size) > 1<<50 {
		return fmt.Errorf("%q is no size: write a number of bytes, or one with KiB, MiB or GiB", b)
	}
	*n = Bytes(v * float64(size))
	return nil
}

// MarshalText writes what UnmarshalText reads.
func (n Bytes) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// String uses the largest unit that leaves a whole number.
func (n Bytes) String() string {
	for _, u := range units[:3] {
		if n != 0 && int64(n)%u.size == 0 {
			return strconv.FormatInt(int64(n)/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(n), 10)
}
