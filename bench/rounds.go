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

// Median returns the median of the values that of returns.
func (r Results) Median(of func(Sample) float64) float64 {
	xs := make([]float64, len(r))
	for i, s := range r {
		xs[i] = of(s)
	}
	return Median(xs)
}

// Ratio returns the median of the ratios of r to base, round by round. It ignores rounds that base lacks or in
// which base is 0.
func (r Results) Ratio(base Results, of func(Sample) float64) float64 {
	var xs []float64
	for i, s := range r {
		if i < len(base) {
			if b := of(base[i]); b != 0 {
				xs = append(xs, of(s)/b)
			}
		}
	}
	return Median(xs)
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

// Nanos returns the time per call in nanoseconds: the elapsed time divided by the number of calls of all callers.
func Nanos(s Sample) float64 { return float64(s.Elapsed) / float64(max(s.Calls, 1)) }

// Allocs returns a sample's allocations per call.
func Allocs(s Sample) float64 { return s.Allocs }
