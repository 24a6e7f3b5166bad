package harness

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"

	"github.com/weircache/weir/bench/scenario"
	"github.com/weircache/weir/bench/trace"
	"github.com/weircache/weir/bench/workload"
	"github.com/weircache/weir/tier"
)

// universe is all keys of a scenario: first the generated keys, which all loads share, then each burst's fresh
// keys, then each trace's. It is read-only.
type universe struct {
	names   workload.Names
	index   map[string]int32
	sizes   func(key int) int
	streams []*stream
	partial string // why a trace is incomplete
}

// stream is the sequence of one load's requests. It is safe for concurrent use if each goroutine has its own r.
type stream struct {
	load   scenario.Load
	first  int // index of its first key
	source workload.Source
	mix    workload.Mix
	log    *trace.Log
	at     atomic.Int64
}

// newUniverse reads the traces and names all keys.
func newUniverse(s *scenario.Scenario) (*universe, error) {
	u := &universe{}
	shared := 0
	for _, l := range s.Load {
		if l.Keys.Kind != "trace" && l.Keys.Kind != "fresh" {
			shared = max(shared, l.Keys.Count)
		}
	}
	u.names = workload.MakeNames("key:", shared)
	recorded := make(map[int]int32)
	for i, l := range s.Load {
		st := &stream{load: l, mix: workload.Mix{Read: l.Mix.Read, Write: l.Mix.Write, Many: l.Mix.Many}}
		k := l.Keys
		switch k.Kind {
		case "zipf":
			st.source = workload.NewZipf(k.Count, k.Theta, k.Items)
		case "uniform":
			st.source = workload.Uniform(k.Count)
		case "hot":
			st.source = workload.Hot{Count: k.Count, Share: k.Share}
		case "scan":
			st.source = &workload.Scan{Count: k.Count}
		case "fresh":
			st.first = len(u.names)
			n := int((s.Duration.D()+s.Warmup.D())/l.Every.D()) + 2
			u.names = append(u.names, workload.MakeNames(fmt.Sprintf("fresh:%d:", i), n)...)
		case "trace":
			st.first = len(u.names)
			if k.File == "" {
				return nil, errors.New("harness: the scenario replays a trace and names none: give its file and format")
			}
			var err error
			if st.log, err = trace.Load(k.File, trace.Format(k.Format), k.Count); st.log == nil || len(st.log.Keys) == 0 {
				return nil, err
			}
			if err != nil {
				u.partial = err.Error()
			}
			prefix := fmt.Sprintf("t%d:", i)
			for n, name := range st.log.Names {
				recorded[len(u.names)] = st.log.Sizes[n]
				u.names = append(u.names, prefix+name)
			}
		}
		u.streams = append(u.streams, st)
	}
	u.index = make(map[string]int32, len(u.names))
	for i, name := range u.names {
		u.index[name] = int32(i)
	}
	u.sizes = sizes(s, recorded)
	return u, nil
}

// sized returns the scenario with the sizes of its tiers in bytes, if it gives them as a percentage of all keys' bytes.
func (u *universe) sized(s *scenario.Scenario) *scenario.Scenario {
	c := s.Cluster
	if c.Percent == 0 {
		return s
	}
	all := 0
	for i, name := range u.names {
		all += len(name) + u.sizes(i)
	}
	node := scenario.Bytes(float64(all) * c.Percent / 100 / float64(c.Nodes))
	if c.Near > 0 {
		c.Near = max(tier.MinBytes, scenario.Bytes(float64(node)*float64(c.Near)/float64(c.Near+c.Owned)))
		node -= c.Near
	}
	c.Owned = max(tier.MinBytes, node)
	out := *s
	out.Cluster = c
	return &out
}

// sizes returns the size of each key's value, in bytes. recorded are those of traces.
func sizes(s *scenario.Scenario, recorded map[int]int32) func(key int) int {
	v := s.Values
	switch v.Kind {
	case "lognormal":
		return workload.Lognormal(int(v.P50), int(v.P99), int(v.Max), s.Seed)
	case "trace":
		return func(key int) int {
			if n := recorded[key]; n > 0 {
				return min(int(n), int(v.Max))
			}
			return int(v.Size)
		}
	}
	return func(int) int { return int(v.Size) }
}

// rewind restarts the stream for the next round.
func (st *stream) rewind() {
	st.at.Store(0)
	if s, ok := st.source.(*workload.Scan); ok {
		st.source = &workload.Scan{Count: s.Count}
	}
}

// request is what a caller asks for.
type request struct {
	op   workload.Op
	key  int
	keys []int // of Many: all of them; nil: an operation on one key
}

// next returns the next request; ok is false at the end of a trace.
func (st *stream) next(r *rand.Rand) (q request, ok bool) {
	if st.log == nil {
		if n := st.load.Keys.Requests; n > 0 && st.at.Add(1) > int64(n) {
			return request{}, false
		}
		key := st.source.Next(r)
		q = request{key: st.first + key, op: st.mix.Next(r)}
		if q.op == workload.Many { // generated keys begin at 0
			q.keys = workload.Batch(st.source, r, key, st.load.Mix.Batch, st.load.Keys.Count)
		}
		return q, true
	}
	i := int(st.at.Add(1) - 1)
	if i >= len(st.log.Keys) {
		return request{}, false
	}
	return request{key: st.first + int(st.log.Keys[i]), op: st.mix.Next(r)}, true
}
