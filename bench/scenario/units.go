package scenario

import (
	"encoding"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// unitError is the error for an unreadable value, with its place.
type unitError struct {
	line int
	err  error
}

func (e *unitError) Error() string { return e.err.Error() }

// unmarshal reads a scalar value.
func unmarshal(n *yaml.Node, into encoding.TextUnmarshaler) error {
	text := n.Value
	if n.Kind != yaml.ScalarNode {
		text = "a list or a map"
	}
	if err := into.UnmarshalText([]byte(text)); err != nil {
		return &unitError{n.Line, err}
	}
	return nil
}

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

// UnmarshalYAML is UnmarshalText for a file: its error has a line.
func (d *Duration) UnmarshalYAML(n *yaml.Node) error { return unmarshal(n, d) }

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

// UnmarshalYAML is UnmarshalText for a file: its error has a line.
func (n *Bytes) UnmarshalYAML(node *yaml.Node) error { return unmarshal(node, n) }

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
