package scenario

import (
	"fmt"
	"strconv"
)

// A Claim is a requirement on a run: a measure and a bound. A run in which weir does not satisfy it ends with an
// error.
type Claim struct {
	Measure string   `yaml:"measure" json:"measure"`
	Most    *float64 `yaml:"most,omitempty" json:"most,omitempty"`
	Least   *float64 `yaml:"least,omitempty" json:"least,omitempty"`
	Says    string   `yaml:"says" json:"says"` // what it means, in a few words
}

// Claimable returns the measures that a claim can be about.
func Claimable() []string {
	return []string{
		"gets_per_second", "answered", "origin_calls", "origin_failed", "amplification", "origin_peak", "origin_mean", "origin_seconds", "served_per_fill",
		"hit_ratio", "p50_ms", "p99_ms", "p999_ms", "max_ms", "errors", "lost", "wrong", "stale", "stale_max_ms",
		"stale_after_invalidate", "stale_after_invalidate_max_ms", "stale_rejoined", "stale_cut_off", "stale_cut_off_max_ms",
		"age_p99_ms", "age_max_ms", "recover_seconds",
	}
}

// Held reports whether a measure's value satisfies the claim. What did not happen, such as a recovery, is infinite.
func (c Claim) Held(x float64) bool {
	return (c.Most == nil || x <= *c.Most) && (c.Least == nil || x >= *c.Least)
}

// String returns a text such as "origin_peak <= 32: ..." with what the claim says.
func (c Claim) String() string {
	number := func(x float64) string { return strconv.FormatFloat(x, 'f', -1, 64) }
	bound := c.Measure
	if c.Least != nil {
		bound += " >= " + number(*c.Least)
	}
	if c.Most != nil {
		bound += " <= " + number(*c.Most)
	}
	return bound + ": " + c.Says
}

func (c *checker) claim(at string, k Claim) {
	c.among(at+".measure", k.Measure, Claimable()...)
	if k.Most == nil && k.Least == nil {
		c.bad(at, "a claim needs a bound: most, least or both")
	}
	if k.Most != nil && k.Least != nil && !(*k.Least <= *k.Most) {
		c.bad(at, "at least %v and at most %v is nothing", *k.Least, *k.Most)
	}
	if k.Says == "" {
		c.bad(at+".says", "a claim says what it means")
	}
}

func (c *checker) claims(s *Scenario) {
	for i, k := range s.Claims {
		c.claim(fmt.Sprintf("claims[%d]", i), k)
	}
}
