package harness

import (
	"encoding/json"

	"github.com/weircache/weir/bench/scenario"
)

// named returns a measure by its name in the JSON.
func (m *Measures) named(name string) (float64, bool) {
	b, err := json.Marshal(m)
	if err != nil {
		return 0, false // a NaN, which fails every claim
	}
	all := map[string]Time{}
	if err := json.Unmarshal(b, &all); err != nil {
		return 0, false
	}
	x, ok := all[name]
	return float64(x), ok
}

// A Verdict is the result of a claim for a system.
type Verdict struct {
	Claim scenario.Claim
	Value float64 // of the first round that violated the claim, else of the first round
	Held  bool    // in all rounds
}

// Judge checks a system's rounds against the claims, and returns the verdicts in the order of the claims. It
// returns none if no round was measured.
func Judge(claims []scenario.Claim, r *Result) []Verdict {
	if len(r.Rounds) == 0 {
		return nil
	}
	var out []Verdict
	for _, c := range claims {
		v := Verdict{Claim: c, Held: true}
		for i := range r.Rounds {
			x, ok := r.Rounds[i].Measures.named(c.Measure)
			held := ok && c.Held(x)
			// Among rounds that satisfy the claim any value will do. The first one that violates it must be shown.
			if i == 0 || v.Held && !held {
				v.Value = x
			}
			v.Held = v.Held && held
		}
		out = append(out, v)
	}
	return out
}
