package roster

import (
	"math"
	"testing"
	"time"
)

// TestStandings checks each transition of a start, as in the table in start.go.
func TestStandings(t *testing.T) {
	const hears, deaf = time.Duration(math.MaxInt64), time.Duration(0)
	now := time.Unix(1000, 0)
	live, ended, doubted := standing{}, standing{ended: now}, standing{doubted: now}
	leaving, retired := standing{leaving: true}, standing{retired: true}
	for name, c := range map[string]struct{ got, want standing }{
		"live, a message":                {live.heard(false), live},
		"live, a message that it leaves": {live.heard(true), leaving},
		"leaving, a message":             {leaving.heard(false), leaving},
		"retired, a message":             {retired.heard(false), live},
		"doubted, a message":             {doubted.heard(false), live},
		"evidence, a message":            {ended.heard(false), live},
		"retired, a direct message":      {retired.spoke(), live},
		"leaving, a direct message":      {leaving.spoke(), leaving},
		"retired, a probe":               {retired.probed(), live},
		"evidence, a probe":              {ended.probed(), live},
		"leaving, a probe":               {leaving.probed(), leaving},
		"live, it leaves":                {live.leaves(), leaving},
		"live, a later one leaves":       {live.retires(), retired},
		"live, evidence":                 {live.proven(now), ended},
		"evidence, more evidence":        {ended.proven(now.Add(time.Second)), ended},
	} {
		if c.got != c.want {
			t.Errorf("%s: %+v, want %+v", name, c.got, c.want)
		}
	}
	for name, c := range map[string]struct {
		s    standing
		able time.Duration
		want standing
		f    fate
	}{
		"live":                     {live, hears, live, vanishes},
		"live, and deaf":           {live, deaf, doubted, stays},
		"leaving":                  {leaving, deaf, leaving, leaves},
		"retired":                  {retired, deaf, retired, leaves},
		"evidence, and deaf":       {ended, deaf, standing{ended: now, doubted: now}, stays},
		"it hears again, too late": {live, refuteWithin - 1, doubted, stays},
		"it has heard for long":    {live, refuteWithin, live, vanishes},
	} {
		if got, f := c.s.dead(now, c.able); got != c.want || f != c.f {
			t.Errorf("declared dead, %s: %+v and fate %d, want %+v and %d", name, got, f, c.want, c.f)
		}
	}
	for name, c := range map[string]struct {
		s     standing
		after time.Duration
		able  time.Duration
		f     fate
		again time.Duration
	}{
		"not doubted":              {live, time.Hour, deaf, stays, 0},
		"deaf":                     {doubted, time.Second, deaf, stays, refuteWithin},
		"it has heard for a while": {doubted, time.Second, refuteWithin / 4, stays, refuteWithin * 3 / 4},
		"deaf for long":            {doubted, doubtMost - time.Millisecond, deaf, stays, time.Millisecond},
		"deaf for too long":        {doubted, doubtMost, deaf, vanishes, 0},
		"it hears":                 {doubted, 2 * time.Second, refuteWithin, vanishes, 0},
		"evidence":                 {doubted.proven(now), time.Millisecond, deaf, vanishes, 0},
		"it has said it leaves":    {doubted.leaves(), time.Millisecond, deaf, leaves, 0},
		"a later one of it leaves": {doubted.retires(), time.Millisecond, deaf, leaves, 0},
	} {
		if f, again := c.s.decide(now.Add(c.after), c.able); f != c.f || again != c.again {
			t.Errorf("doubted, %s: fate %d, again after %v; want %d and %v", name, f, again, c.f, c.again)
		}
	}
}
