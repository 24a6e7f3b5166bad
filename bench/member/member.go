package member

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/weircache/weir/peer"
	"github.com/weircache/weir/tier"
)

// A Member is a node with its cache. It is immutable.
type Member[V any] struct {
	Node  *peer.Node
	Cache *tier.Cache[V]
}

// Start starts a node and a cache on it, whatever c.Cluster is. Without a Logger the logs are discarded. ctx bounds
// only the start.
func Start[V any](ctx context.Context, n peer.Config, c tier.Config[V]) (*Member[V], error) {
	if n.Logger == nil {
		n.Logger = slog.New(slog.DiscardHandler)
	}
	node, err := peer.Start(ctx, n)
	if err != nil {
		return nil, err
	}
	c.Cluster = node
	cache, err := tier.New(c)
	if err != nil {
		return nil, errors.Join(err, node.Close())
	}
	return &Member[V]{node, cache}, nil
}

// Group starts count members named n0, n1 and so on, and waits until each sees all. n and c are the configurations
// that they have in common. After an error none is left.
func Group[V any](ctx context.Context, count int, n peer.Config, c tier.Config[V]) (all []*Member[V], err error) {
	defer func() {
		if err != nil {
			err, all = errors.Join(err, CloseAll(context.WithoutCancel(ctx), all)), nil
		}
	}()
	for i := range count {
		n.Name = fmt.Sprintf("n%d", i)
		m, err := Start(ctx, n, c)
		if err != nil {
			return all, err
		}
		all, n.Join = append(all, m), []string{m.Node.Addr()}
	}
	for _, m := range all {
		if err := AwaitView(ctx, m.Node, count); err != nil {
			return all, err
		}
	}
	return all, nil
}

// AwaitView waits until the node sees exactly the given number of members, itself included.
func AwaitView(ctx context.Context, n *peer.Node, members int) error {
	for {
		changed := n.ViewChanged() // obtained before the check, so that no change is missed
		if n.View().Len() == members {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%s sees %d of %d members: %w", n.Name(), n.View().Len(), members, ctx.Err())
		}
	}
}

// AwaitReady waits until the node takes part, as a load balancer would.
func AwaitReady(ctx context.Context, n *peer.Node) error {
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for {
		err := n.Ready()
		if err == nil {
			return nil
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", n.Name(), errors.Join(err, ctx.Err()))
		}
	}
}

// Leave ends the member gracefully: it leaves the cluster while its cache still answers.
func (m *Member[V]) Leave(ctx context.Context) error {
	return errors.Join(m.Node.Leave(ctx), m.Cache.Close(ctx))
}

// Kill ends the member as if its process were killed: the network goes first, so that it does not announce its end.
func (m *Member[V]) Kill(ctx context.Context) error {
	return errors.Join(m.Node.Close(), m.Cache.Close(ctx))
}

// Close ends the member.
func (m *Member[V]) Close(ctx context.Context) error {
	return errors.Join(m.Cache.Close(ctx), m.Node.Close())
}

// CloseAll closes all members.
func CloseAll[V any](ctx context.Context, all []*Member[V]) error {
	var errs []error
	for _, m := range all {
		errs = append(errs, m.Close(ctx))
	}
	return errors.Join(errs...)
}
