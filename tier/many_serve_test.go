package tier

import (
	"slices"
	"strings"
	"testing"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
)

// An owner rejects bad multi-gets of a member, and a member copes with answers that do not fit its request.
func TestServeManyBadInput(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 2), newOrigin()
		caches := s.start(o, Config[simValue]{})
		defer s.stop(caches)
		c := caches["n1"]
		view := s.nodes["n1"].View()
		mine, other := keyOf(view, "n1", 0), keyOf(view, "n0", 0)
		ask := func(req codec.Request) (out []codec.Response) {
			t.Helper()
			req.Kind, req.Namespace, req.Schema = codec.KindGetMany, c.own.NamespaceBytes, c.own.Config.Schema
			var resp codec.Response
			to, _ := view.Member("n1")
			if err := s.nodes["n0"].Call(background, to, &req, &resp); err != nil || resp.Status != codec.StatusMany {
				t.Fatalf("%+v, %v", resp, err)
			}
			rest := resp.Value
			for len(rest) > 0 {
				var part codec.Response
				var err error
				if rest, err = codec.NextAnswer(&part, rest); err != nil {
					t.Fatal(err)
				}
				out = append(out, part)
			}
			return out
		}
		statuses := func(req codec.Request, want ...codec.Status) {
			t.Helper()
			var got []codec.Status
			for _, part := range ask(req) {
				got = append(got, part.Status)
			}
			if !slices.Equal(got, want) {
				t.Errorf("%v, want %v", got, want)
			}
		}
		wants := []codec.Wanted{{}, {Key: []byte(mine)}, {Key: []byte(other)}, {Key: []byte(mine), Fence: mark(9)}}
		statuses(codec.Request{})
		statuses(codec.Request{Many: wants}, codec.StatusFailed, codec.StatusPending, codec.StatusMoved, codec.StatusPending)
		statuses(codec.Request{Many: wants, Mode: codec.ModeWait}, codec.StatusFailed, codec.StatusValue, codec.StatusMoved, codec.StatusValue)
		statuses(codec.Request{Many: wants}, codec.StatusFailed, codec.StatusValue, codec.StatusMoved, codec.StatusValue)
		statuses(codec.Request{Many: wants[:2], Chain: make([]uint64, codec.MaxChain)}, codec.StatusFailed, codec.StatusCycle)
		if n := o.loads.Load(); n != 1 {
			t.Errorf("%d loads", n)
		}
		c.own.Isolation.Cut.Store(true)
		var resp codec.Response
		if h := newHandler(c); h.TryServe(&codec.Request{Kind: codec.KindGetMany, Many: wants}, &resp) {
			t.Error("an isolated owner answers at once")
		} else if h.Serve(background, &codec.Request{Kind: codec.KindGetMany, Many: wants}, &resp); resp.Status != codec.StatusIsolated {
			t.Errorf("%v", resp.Status)
		}
		c.own.Isolation.Cut.Store(false)

		// The answer has fewer parts than there are keys, or none.
		for _, cut := range []bool{false, true} {
			s.nodes["n1"].mu.Lock()
			reg := s.nodes["n1"].reg["sim"]
			s.nodes["n1"].reg["sim"] = simReg{reg.schema, shortened{reg.h, cut}}
			s.nodes["n1"].mu.Unlock()
			got, err := caches["n0"].GetMany(background, []string{mine, keyOf(view, "n1", 1), keyOf(view, "n1", 2)})
			if err != nil || len(got) != 3 {
				t.Errorf("%v, %v", got, err)
			}
			for key, v := range got {
				if v.Node != "n1" {
					t.Errorf("%s: %+v", key, v)
				}
			}
			s.nodes["n1"].mu.Lock()
			s.nodes["n1"].reg["sim"] = reg
			s.nodes["n1"].mu.Unlock()
		}
	})
}

// shortened answers multi-gets with fewer parts than there should be.
type shortened struct {
	codec.Handler
	empty bool
}

func (h shortened) TryServe(req *codec.Request, resp *codec.Response) bool {
	if req.Kind != codec.KindGetMany {
		return h.Handler.TryServe(req, resp)
	}
	if h.empty {
		req.Many = nil
	}
	req.Many = req.Many[:min(len(req.Many), 1)]
	return h.Handler.TryServe(req, resp)
}

func TestFrameful(t *testing.T) {
	reads := make([]*keyRead[int], 3000)
	for i := range reads {
		reads[i] = &keyRead[int]{key: strings.Repeat("k", 1+i%codec.MaxKey), hash: ring.Hash("x")}
	}
	for len(reads) > 0 {
		n := frameful(reads)
		size := 0
		for _, r := range reads[:n] {
			size += codec.ManySize(len(r.key))
		}
		if n < 1 || n > codec.MaxKeysPerGet || size > frameBytes || n < len(reads) && n < codec.MaxKeysPerGet && size+codec.ManySize(len(reads[n].key)) <= frameBytes {
			t.Fatalf("%d keys of %d bytes", n, size)
		}
		reads = reads[n:]
	}
}
