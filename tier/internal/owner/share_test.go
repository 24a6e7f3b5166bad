package owner_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/internal/simtime"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/owner"
)

// A joining node begins no load before the other members have said that their loads fit their shares: not while they do not fit,
// and for the origin's time and ShareGrace if they are silent.
func TestJoiningNodeTakesItsShare(t *testing.T) {
	const silent = 10*time.Second + owner.ShareGrace
	for name, x := range map[string]struct {
		fixed       bool // the Cluster's shares do not move
		down        bool
		otherView   bool
		earlier     bool // an earlier start of the node's name may be alive
		beyond      time.Duration
		least, most time.Duration
	}{
		"the others fit":           {least: 0, most: time.Second},
		"shares are fixed":         {fixed: true, down: true, least: 0, most: 0},
		"silence":                  {down: true, least: silent, most: silent + time.Second},
		"another view":             {otherView: true, least: silent, most: silent + time.Second},
		"an earlier start":         {earlier: true, least: silent, most: silent + time.Second},
		"a load that does not fit": {beyond: 9 * time.Second, least: 9 * time.Second, most: 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			simtime.Test(t, func(t *testing.T) {
				n := newNetwork(t)
				view := viewOf(t, "a", "b")
				var permits atomic.Int64
				permits.Store(1)
				a := n.open("a", view, func(ctx context.Context, _ *owner.Run, _ string) ([]byte, error) {
					return nil, owner.Sleep(ctx, x.beyond)
				}, func(s *setup) { s.Share = func() (int, int) { return int(permits.Load()), 1 } })
				if x.beyond > 0 {
					a.node.Spawn(func() { _, _ = a.node.read(background, keyOf(view, "a", 0)) })
					time.Sleep(time.Nanosecond)
					permits.Store(0)
				}
				if x.otherView {
					n.show(viewOf(t, "a", "b", "c"), a)
				}
				n.setMeddle(func(_, _ string, req *codec.Request, _ *codec.Response) (bool, error) {
					if x.down && req.Kind == codec.KindSync {
						return false, errDown
					}
					return false, nil
				})
				b := n.open("b", view, constant, func(s *setup) {
					s.Cluster = &informed{member: s.Cluster.(*member), moves: !x.fixed, earlier: func() bool { return x.earlier }}
				})
				began, key := time.Now(), keyOf(view, "b", 0)
				ctx, cancel := context.WithTimeout(background, time.Minute)
				defer cancel()
				_, err := b.node.GetOwnedFor(ctx, &owner.Lookup{Key: key, Hash: ring.Hash(key), MaxAge: owner.AnyAge})
				if took := time.Since(began); err != nil || took < x.least || took > x.most+200*time.Millisecond {
					t.Errorf("%v after %v", err, took)
				}
			})
		})
	}
}
