package main

import (
	"testing"

	"github.com/weircache/weir/bench/harness"
)

// TestManyAtOnce checks that the systems whose client reads several keys in one call give the right values, cold and
// warm.
func TestManyAtOnce(t *testing.T) {
	s := parse(t, `name: many
about: a test
duration: 300ms
cluster: {nodes: 2}
origin: {latency: {kind: fixed, p50: 1ms}}
load: [{callers: 4, loop: closed, keys: {kind: uniform, count: 60}, mix: {many: 1, batch: 10}}]
`)
	for _, system := range []harness.System{loading{}, softTTL{}, softTTL{usesRedis{tls: true}}, memcached{}} {
		t.Run(system.Name(), func(t *testing.T) {
			need(t, system)
			r, err := harness.Run(t.Context(), s, []harness.System{system}, harness.Options{})
			if err != nil || r.Partial != "" {
				t.Fatalf("%v, %s", err, r.Partial)
			}
			if m := r.Systems[0].Overall; m.Errors > 0 || m.Wrong > 0 || m.Gets < 60 || m.OriginCalls < 60 {
				t.Errorf("%+v, %v", m, r.Systems[0].Rounds[0].Errors)
			}
		})
	}
}
