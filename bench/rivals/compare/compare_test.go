package main

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/redis/rueidis"
	"go.uber.org/goleak"

	"github.com/weircache/weir/bench/harness"
	"github.com/weircache/weir/bench/rivals/server"
	"github.com/weircache/weir/bench/scenario"
)

func TestMain(m *testing.M) {
	// rueidis waits up to a second before it dials again, closed or not.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/rueidis.(*call).DelayDo.func1"))
}

// parse reads a scenario of a test.
func parse(t *testing.T, text string) *scenario.Scenario {
	t.Helper()
	s, err := scenario.Parse("test.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const small = `name: small
about: a test
duration: 2s
cluster: {nodes: 1, near: 128KiB, owned: 384KiB}
values: {size: 1KiB}
origin: {latency: {kind: fixed, p50: 0s}}
load: [{callers: 16, loop: closed, keys: {kind: uniform, count: 3000}}]
`

// need fails a test if a program is missing that the system starts, or skips it with -short.
func need(t *testing.T, system harness.System) {
	t.Helper()
	n, ok := system.(interface{ needs() error })
	if !ok || n.needs() == nil {
		return
	} else if !testing.Short() {
		t.Fatal(n.needs())
	}
	t.Skip(n.needs())
}

// TestRivalsHoldEqualBytes runs all rivals one after the other and checks that none with a bound holds more than
// weir's tiers together.
func TestRivalsHoldEqualBytes(t *testing.T) {
	s := parse(t, small)
	for _, system := range rivals() {
		t.Run(system.Name(), func(t *testing.T) {
			need(t, system)
			y := filled(t, s, system)
			held, ok := y.Rounds[0].Counters[harness.HeldBytes]
			if !ok || held == 0 {
				t.Error("it does not tell what it holds")
			}
			t.Logf("it holds %.0f bytes", held)
			most := 512 << 10
			switch y.Name {
			case "olric":
				return // its adapter says that its LRU is not a bound
			case "redis+rueidisaside", "redis+softttl":
				most += 64 << 10 // buffers for its connections
			case "memcached":
				most = 2 << 20 // the least that it accepts
			}
			if held > float64(most) || held < float64(most)/3 {
				t.Errorf("it holds %.0f bytes of %d", held, most)
			}
		})
	}
}

// filled runs a scenario until the system was given enough to be full: the machine decides how much one run can do.
func filled(t *testing.T, s *scenario.Scenario, system harness.System) *harness.Result {
	t.Helper()
	for {
		r, err := harness.Run(t.Context(), s, []harness.System{system}, harness.Options{})
		if err != nil || r.Partial != "" {
			t.Fatalf("%s: %v, %s", system.Name(), err, r.Partial)
		}
		y := r.Systems[0]
		if m := y.Overall; m.Errors > 0 || m.Wrong > 0 {
			t.Fatalf("%s: %+v", y.Name, m)
		} else if m.OriginCalls >= 800 {
			return y
		}
	}
}

// TestRedisCannotStart checks that rivals which cannot take part are reported with instructions, and that the
// others are measured.
func TestRedisCannotStart(t *testing.T) {
	s := parse(t, strings.Replace(small, "duration: 2s", "duration: 200ms", 1))
	for name, c := range map[string]struct {
		script string
		want   []string
	}{
		"missing":    {"", []string{"redis-server is not installed", "apt-get install redis-server"}},
		"ends":       {"#!/bin/sh\nexit 3\n", []string{"redis-server ended at its start", "to see why: ", "--port "}},
		"no program": {"\x00", []string{"cannot be run"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if c.script != "" {
				if err := os.WriteFile(filepath.Join(dir, "redis-server"), []byte(c.script), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			t.Setenv("PATH", dir)
			r, err := harness.Run(t.Context(), s, []harness.System{redis{}, loading{}}, harness.Options{})
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range c.want {
				if !strings.Contains(r.Systems[0].Partial, want) {
					t.Errorf("%q does not say %q", r.Systems[0].Partial, want)
				}
			}
			if y := r.Systems[1]; y.Partial != "" || y.Overall.Gets == 0 {
				t.Errorf("otter was not measured: %+v", y)
			}
		})
	}
}

// mortal is Redis with a server that dies during a get.
type mortal struct {
	redis
	gets atomic.Int64
}

type mortalCluster struct {
	*locals
	of *mortal
}

func (m *mortal) Start(ctx context.Context, env harness.Env) (harness.Cluster, error) {
	c, err := m.redis.Start(ctx, env)
	if err != nil {
		return nil, err
	}
	return mortalCluster{c.(*locals), m}, nil
}

func (c mortalCluster) Get(ctx context.Context, node int, key string) ([]byte, error) {
	if c.of.gets.Add(1) == 200 {
		c.server.(*redisServer).Kill()
	}
	return c.locals.Get(ctx, node, key)
}

// TestRedisDiesInTheMiddle checks that a server that dies ends its own run at once, that what was measured is kept,
// and that the other systems go on.
func TestRedisDiesInTheMiddle(t *testing.T) {
	need(t, redis{})
	s := parse(t, strings.Replace(small, "duration: 2s", "duration: 1m", 1))
	r, err := harness.Run(t.Context(), s, []harness.System{&mortal{}}, harness.Options{Rounds: 2})
	if err != nil {
		t.Fatal(err)
	}
	y := r.Systems[0]
	if len(y.Rounds) != 1 || !strings.Contains(y.Partial, "redis-server does not answer") || y.Overall.Gets < 100 || y.Overall.Seconds > 30 || r.Partial == "" {
		t.Errorf("%d rounds, %q, %v gets in %v s, %q", len(y.Rounds), y.Partial, y.Overall.Gets, y.Overall.Seconds, r.Partial)
	}
}

// TestRedisTLS checks that each rival with a Redis can run with TLS, that its server then answers nobody without it, and
// that its name and its setup tell the two apart.
func TestRedisTLS(t *testing.T) {
	s := parse(t, small)
	plain, tls := usesRedis{}, usesRedis{tls: true}
	for _, pair := range [][2]harness.System{{pubSub{plain}, pubSub{tls}}, {redis{plain}, redis{tls}}, {softTTL{plain}, softTTL{tls}}} {
		t.Run(pair[1].Name(), func(t *testing.T) {
			need(t, pair[1])
			if pair[1].Name() != pair[0].Name()+"+tls" || pair[1].Setup() == pair[0].Setup() {
				t.Errorf("%s: %s", pair[1].Name(), pair[1].Setup())
			}
			cluster, err := pair[1].Start(t.Context(), harness.Env{Scenario: s, Load: func(_ context.Context, key string) ([]byte, error) {
				return []byte("of " + key), nil
			}})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := cluster.Close(context.Background()); err != nil {
					t.Error(err)
				}
			}()
			if b, err := cluster.Get(t.Context(), 0, "k"); string(b) != "of k" || err != nil {
				t.Errorf("%q, %v", b, err)
			}
			var running server.Redis
			switch b := cluster.(*locals).server.(type) {
			case *redisServer:
				running = *b.Redis
			case subscribed:
				running = *b.Redis
			}
			without := rueidis.ClientOption{InitAddress: running.Option().InitAddress}
			if c, err := rueidis.NewClient(without); err == nil {
				c.Close()
				t.Error("its server answers without TLS")
			}
		})
	}
}

// TestRedisLimit checks that the server's limit is set on top of what an empty server takes.
func TestRedisLimit(t *testing.T) {
	need(t, redis{})
	s := parse(t, small)
	y, err := redis{}.Start(t.Context(), harness.Env{Scenario: s})
	if err != nil {
		t.Fatal(err)
	}
	c := y.(*locals).server.(*redisServer)
	defer func() {
		if err := y.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	got, err := c.Client.Do(t.Context(), c.Client.B().ConfigGet().Parameter("maxmemory").Build()).AsStrMap()
	if err != nil {
		t.Fatal(err)
	}
	if want := strconv.FormatInt(c.empty+384<<10, 10); c.empty == 0 || got["maxmemory"] != want {
		t.Errorf("maxmemory is %s, not %s", got["maxmemory"], want)
	}
}
