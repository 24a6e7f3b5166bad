//go:build linux

package main

import (
	"context"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier"
)

// sabotages are what nodes can intentionally do wrong: a checker that does not notice them proves nothing.
var sabotages = map[string]func(tier.Cluster) tier.Cluster{
	"":       func(c tier.Cluster) tier.Cluster { return c },
	"deaf":   func(c tier.Cluster) tier.Cluster { return deaf{c} },
	"greedy": func(c tier.Cluster) tier.Cluster { return greedy{c} },
	"young":  func(c tier.Cluster) tier.Cluster { return young{c} },
}

// deaf is a cluster whose members receive no invalidations and confirm all of them.
type deaf struct{ tier.Cluster }

func (d deaf) Call(ctx context.Context, to ring.Member, req *codec.Request, resp *codec.Response) error {
	some := *req
	if some.Fence.Seq != 0 {
		some.Fence = codec.Mark{}
	}
	confirm := req.Kind == codec.KindInvalidate && len(req.News.Invalidations) > 0
	if confirm {
		some.News = new(codec.News)
	}
	err := d.Cluster.Call(ctx, to, &some, resp)
	if confirm {
		resp.Seq = req.News.Invalidations[len(req.News.Invalidations)-1].Mark.Seq
	}
	return err
}

// greedy is a cluster that gives each member the whole cap.
type greedy struct{ tier.Cluster }

func (greedy) Divisor() (members, rank int) { return 1, 0 }

// young is a cluster whose answers claim to be new.
type young struct{ tier.Cluster }

func (y young) Call(ctx context.Context, to ring.Member, req *codec.Request, resp *codec.Response) error {
	err := y.Cluster.Call(ctx, to, req, resp)
	resp.Age, resp.Soft, resp.Hard = 0, time.Minute, time.Minute
	return err
}
