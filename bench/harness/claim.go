package harness

import (
	"encoding/json"

	"github.com/weircache/weir/bench/scenario"
)

// Named gives a measure by its name in the JSON.
func (m *Measures) Named(name string) (float64, bool) {
	b, err := json.Marshal(m)
	if err != nil {
		return 0, false // a NaN, which no claim is held with
	}
	all := map[string]float64{}
	if err := json.Unmarshal(b, &all); err != nil {
		return 0, false
	}
	x, ok := all[name]
	return x, ok
}

// A Verdict is what came of a claim for a system.
type Verdict struct {
	Claim scenario.Claim
	Value float64 // of the round that was furthest from it
	Held  bool    // in all rounds
}

// Judge holds a system's rounds against the claims, in their order. There is none if nothing was measured.
func Judge(claims []scenario.Claim, r *Result) []Verdict {
	if len(r.Rounds) == 0 {
		return nil
	}
	var out []Verdict
	for _, c := range claims {
		v := Verdict{Claim: c, Held: true}
		for i := range r.Rounds {
			x, ok := r.Rounds[i].Measures.Named(c.Measure)
			held := ok && c.Held(x)
			// Of those that hold it any will do; the first that does not is the one to be shown.
			if i == 0 || v.Held && !held {
				v.Value = x
			}
			v.Held = v.Held && held
		}
		out = append(out, v)
	}
	return out
}
