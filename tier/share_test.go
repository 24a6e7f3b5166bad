package tier

import (
	"testing"
	"time"

	"github.com/weircache/weir/tier/internal/owner"
)

// sharing is a node whose members take their shares by one another's words.
type sharing struct{ *simNode }

func (sharing) SharesMove() bool { return true }

// twin is a node with the name of an earlier process.
type twin struct{ sharing }

func (twin) EarlierStart() bool { return true }

// An earlier process with this node's name may still load by its old share, and is in no view: the joining node waits
// as for a silent member.
func TestShareBesideAnEarlierStart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 1), newOrigin()
		c, err := New(Config[simValue]{
			Cluster: twin{sharing{s.nodes["n0"]}}, Namespace: "sim", NearBytes: MinBytes, Loader: o.loader("n0"),
			Freshness: Freshness{TTL: time.Hour, NearTTL: time.Minute}, Origin: Origin{Concurrency: 4, Timeout: 3 * time.Second},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer s.stop(map[string]*Cache[simValue]{"n0": c})
		time.Sleep(3 * time.Second)
		if c.Stats().Governor.Limit > 0 {
			t.Error("the share is taken while loads of the earlier process may run")
		}
		time.Sleep(owner.ShareGrace + time.Second)
		if c.Stats().Governor.Limit == 0 {
			t.Error("the share is not taken")
		}
	})
}

// A member that has no cache of the namespace has no loads of it. But if caches share an origin, other caches may
// load there: the joining node waits as for a silent member.
func TestShareBesideOtherCachesOfTheOrigin(t *testing.T) {
	for _, shared := range []bool{false, true} {
		bubble(t, func(t *testing.T) {
			s, o := newSim(t, 2), newOrigin()
			other := s.open("n0", o, Config[simValue]{Namespace: "other"})
			cfg := Config[simValue]{
				Cluster: sharing{s.nodes["n1"]}, Namespace: "sim", NearBytes: MinBytes, Loader: o.loader("n1"),
				Freshness: Freshness{TTL: time.Hour, NearTTL: time.Minute}, Origin: Origin{Concurrency: 4, Timeout: 3 * time.Second},
			}
			if shared {
				var err error
				if cfg.SharedOrigin, err = NewSharedOrigin("database", cfg.Origin); err != nil {
					t.Fatal(err)
				}
				cfg.Origin = Origin{}
			}
			c, err := New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer s.stop(map[string]*Cache[simValue]{"n0": other, "n1": c})
			time.Sleep(time.Second)
			if taken := c.Stats().Governor.Limit > 0; taken == shared {
				t.Errorf("shared %v: taken %v at once", shared, taken)
			}
			time.Sleep(3*time.Second + owner.ShareGrace)
			if c.Stats().Governor.Limit == 0 {
				t.Errorf("shared %v: the share is not taken", shared)
			}
		})
	}
}
