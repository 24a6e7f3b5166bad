package main

import (
	"errors"
	"fmt"
	"net"
	"net/rpc"
	"os"
	"slices"
	"time"

	"github.com/redis/rueidis"
	"google.golang.org/grpc"

	"github.com/weircache/weir/bench"
	"github.com/weircache/weir/bench/cputime"
	"github.com/weircache/weir/bench/rivals/server"
	"github.com/weircache/weir/tier"
)

const rolePeer = "peer"

// playPeer is another process: two nodes of weir, without TLS and with it, raw TCP, gRPC, a node of groupcache, and the
// control, each on a port that it reports.
func playPeer() (line string, stop func(), err error) {
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	go serveRaw(raw)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	s := newGRPC()
	go func() { _ = s.Serve(l) }()
	name := fmt.Sprint(rolePeer, os.Getpid())
	plain, err := startNode(nil, name)
	if err != nil {
		return "", nil, err
	}
	sealed, err := startNode(secret, name)
	if err != nil {
		return "", nil, err
	}
	g, err := startGroup()
	if err != nil {
		return "", nil, err
	}
	addr, err := serveControl(control{})
	return fmt.Sprintln(plain.Node.Addr(), sealed.Node.Addr(), raw.Addr(), l.Addr(), g.addr, addr), func() {
		_ = g.close()
		_ = closeMembers(plain, sealed)
		s.Stop()
		_ = raw.Close()
	}, err
}

// redisClient is a client of a Redis, with the name that it has in the table.
type redisClient struct {
	name   string
	sealed bool
	delay  time.Duration
	client rueidis.Client // not embedded: rueidis.MGet looks at its type
}

// cluster is this process's connections to other processes.
type cluster struct {
	plain, sealed *weirMember // they place keys alike
	raw           string
	pipe          *pipe
	grpc          *grpc.ClientConn
	group         *group
	redis         []redisClient // none without redis-server
	peers         []*rpc.Client
	servers       []*server.Redis
	closers       []func() error
}

func (c *cluster) close() error {
	var errs []error
	for _, f := range slices.Backward(c.closers) {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}

// startCluster starts other processes, each a member beside this one, and what they are compared with. After an error
// the caller must close what there is.
func startCluster(o options, peers int) (*cluster, error) {
	c := &cluster{}
	at := make([][]string, 6) // by what it is, the addresses
	for range peers {
		p, err := bench.Child(rolePeer)
		if err != nil {
			return c, err
		}
		c.closers = append(c.closers, p.Stop)
		if len(p.Words) != len(at) {
			return c, fmt.Errorf("the other process said %q", p.Words)
		}
		for i, addr := range p.Words {
			at[i] = append(at[i], addr)
		}
		control, err := rpc.Dial("tcp", p.Words[5])
		if err != nil {
			return c, err
		}
		c.peers, c.closers = append(c.peers, control), append(c.closers, control.Close)
	}
	var err error
	if c.plain, err = startNode(nil, "here", at[0]...); err != nil {
		return c, err
	}
	c.closers = append(c.closers, func() error { return closeMembers(c.plain) })
	if c.sealed, err = startNode(secret, "here", at[1]...); err != nil {
		return c, err
	}
	c.closers = append(c.closers, func() error { return closeMembers(c.sealed) })
	c.raw = at[2][0]
	if c.pipe, err = dialPipe(c.raw); err != nil {
		return c, err
	}
	c.closers = append(c.closers, c.pipe.close)
	if c.grpc, err = dialGRPC(at[3][0]); err != nil {
		return c, err
	}
	c.closers = append(c.closers, c.grpc.Close)
	if c.group, err = startGroup(at[4]...); err != nil {
		return c, err
	}
	c.closers = append(c.closers, c.group.close)
	if err := c.startRedis(); errors.Is(err, server.ErrNoRedis) {
		o.log("%v", err)
	} else if err != nil {
		return c, err
	}
	return c, errors.Join(awaitView(c.plain, 1+peers), awaitView(c.sealed, 1+peers))
}

// startRedis starts a Redis without TLS and one with it, and their clients.
func (c *cluster) startRedis() error {
	for _, sealed := range []bool{false, true} {
		s, err := startRedis(sealed)
		if err != nil {
			return err
		}
		c.servers, c.closers = append(c.servers, s), append(c.closers, func() error { s.Stop(); return nil })
		for _, delay := range flushDelays {
			client, err := s.Dial(delay)
			if err != nil {
				return err
			}
			c.closers = append(c.closers, func() error { client.Close(); return nil })
			c.redis = append(c.redis, redisClient{redisName(sealed, delay), sealed, delay, client})
		}
	}
	return nil
}

// cpu returns the CPU time that this process and all others have used.
func (c *cluster) cpu() (time.Duration, error) {
	sum := cputime.Used()
	for _, p := range c.peers {
		var used time.Duration
		if err := p.Call(controlName+".CPU", struct{}{}, &used); err != nil {
			return 0, err
		}
		sum += used
	}
	for _, s := range c.servers {
		used, err := s.CPU()
		if err != nil {
			return 0, err
		}
		sum += used
	}
	return sum, nil
}

// crossed returns a check for the end of a measurement: an error if gets since the beginning were not answered by
// another process.
func (c *cluster) crossed() func() error {
	members := []*weirMember{c.plain, c.sealed}
	var before []tier.Stats
	for _, m := range members {
		before = append(before, m.Cache.Stats())
	}
	return func() error {
		for i, m := range members {
			b, a := before[i], m.Cache.Stats()
			if a.Unreachable != b.Unreachable || a.Bypassed != b.Bypassed || a.Near != b.Near {
				return fmt.Errorf("some gets did not cross over: %d near, %d loaded here", a.Near-b.Near, a.Bypassed-b.Bypassed)
			}
		}
		return nil
	}
}

// asked returns an error if fewer keys were requested from other processes than these calls read.
func asked(before, after tier.Stats, calls bench.Results, keys int) error {
	want := int64(0)
	for _, s := range calls {
		want += s.Calls * int64(keys)
	}
	if did := after.Asked - before.Asked; did < want {
		return fmt.Errorf("%d keys of %d did not ask the other process", want-did, want)
	}
	return nil
}
