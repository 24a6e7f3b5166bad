package bench

import (
	"fmt"
	"slices"
)

// Number is any type that can be measured.
type Number interface {
	~int | ~int64 | ~float64
}

// Median returns the middle one of xs, the mean of the two middle ones, or 0 if xs is empty. It does not modify xs.
func Median[T Number](xs []T) T {
	if len(xs) == 0 {
		return 0
	}
	s := slices.Clone(xs)
	slices.Sort(s)
	m := len(s) / 2
	if len(s)%2 == 1 {
		return s[m]
	}
	return s[m-1] + (s[m]-s[m-1])/2
}

// A Contender is one of those that take turns in Rounds.
type Contender struct {
	Name string
	Run  func() (Sample, error)
}

// Results are the samples of one contender, one per round.
type Results []Sample

// Beside returns the value of each round and, if there is a floor, the value of the floor in the same round.
func (r Results) Beside(floor Results, of func(Sample) float64) []Round {
	rounds := make([]Round, len(r))
	for i, s := range r {
		rounds[i].Result = of(s)
		if floor != nil {
			rounds[i].Floor = of(floor[i])
		}
	}
	return rounds
}

// Rounds lets the contenders take turns for n rounds, in reverse order in every second round. The first error ends
// it.
func Rounds(n int, contenders ...Contender) (map[string]Results, error) {
	out := make(map[string]Results, len(contenders))
	order := slices.Clone(contenders)
	for round := range n {
		for _, c := range order {
			s, err := c.Run()
			if err != nil {
				return nil, fmt.Errorf("bench: %s, round %d: %w", c.Name, round+1, err)
			}
			out[c.Name] = append(out[c.Name], s)
		}
		slices.Reverse(order)
	}
	return out, nil
}

// P50Micros returns a sample's p50 in microseconds.
func P50Micros(s Sample) float64 { return float64(s.P50) / 1e3 }

// P99Micros returns a sample's p99 in microseconds.
func P99Micros(s Sample) float64 { return float64(s.P99) / 1e3 }

// CPUMicros returns the CPU time of a call in microseconds.
func CPUMicros(s Sample) float64 { return float64(s.CPU) / float64(max(s.Calls, 1)) / 1e3 }

// Allocs returns a sample's allocations per call.
func Allocs(s Sample) float64 { return s.Allocs }
