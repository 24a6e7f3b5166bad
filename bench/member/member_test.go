package member

import (
	"context"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/weircache/weir/peer"
	"github.com/weircache/weir/tier"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func config() tier.Config[string] {
	return tier.Config[string]{
		Namespace: "member", Freshness: tier.Freshness{TTL: time.Hour},
		Loader: tier.ByKey(func(_ context.Context, key string) (string, error) { return "of " + key, nil }),
	}
}

func TestGroup(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	all, err := Group(ctx, 3, peer.Config{}, config())
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range all {
		if v, err := m.Cache.Get(ctx, "k"); v != "of k" || err != nil {
			t.Errorf("member %d: %q, %v", i, v, err)
		}
		if err := AwaitReady(ctx, m.Node); err != nil {
			t.Error(err)
		}
	}
	if err := all[2].Leave(ctx); err != nil {
		t.Error(err)
	}
	if err := AwaitView(ctx, all[0].Node, 2); err != nil {
		t.Error(err)
	}
	if err := all[1].Kill(ctx); err != nil {
		t.Error(err)
	}
	late, cancel := context.WithCancel(ctx)
	cancel()
	if err := AwaitView(late, all[0].Node, 7); err == nil {
		t.Error("seven members were seen")
	}
	if err := CloseAll(ctx, all[:1]); err != nil {
		t.Error(err)
	}
}

// TestGroupThatFails checks that no node is left: goleak would find it.
func TestGroupThatFails(t *testing.T) {
	if all, err := Group(t.Context(), 2, peer.Config{}, tier.Config[string]{}); err == nil || all != nil {
		t.Errorf("%d members, %v", len(all), err)
	}
	late, cancel := context.WithCancel(t.Context())
	cancel()
	if all, err := Group(late, 2, peer.Config{}, config()); err == nil || all != nil {
		t.Errorf("%d members, %v", len(all), err)
	}
}
