package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"time"

	"github.com/redis/rueidis"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weircache/weir/bench"
)

// rawRequest is the size of a request over raw TCP, in bytes: about that of weir's own request. Its last byte
// selects the value.
const rawRequest = 40

// serveRaw answers each request with a value without any framing.
func serveRaw(l net.Listener) {
	answers := [][]byte{value(sizes[0]), value(sizes[1])}
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer func() { _ = c.Close() }()
			var b [rawRequest]byte
			for {
				if _, err := io.ReadFull(c, b[:]); err != nil {
					return
				}
				if _, err := c.Write(answers[b[rawRequest-1]&1]); err != nil {
					return
				}
			}
		}()
	}
}

// rawCaller sends requests over its own connection.
func rawCaller(addr string, size int) (bench.Caller, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return bench.Caller{}, err
	}
	req, resp := make([]byte, rawRequest), make([]byte, size)
	if size == sizes[1] {
		req[rawRequest-1] = 1
	}
	return bench.Caller{
		Call: func() error {
			if _, err := c.Write(req); err != nil {
				return err
			}
			_, err := io.ReadFull(c, resp)
			return err
		},
		Close: func() { _ = c.Close() },
	}, nil
}

const grpcMethod = "/speed.Values/Get"

// newGRPC returns a server with one method, which returns a string's value as bytes.
func newGRPC() *grpc.Server {
	small, large := value(sizes[0]), value(sizes[1])
	s := grpc.NewServer()
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: "speed.Values", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{
			MethodName: "Get",
			Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				var key wrapperspb.StringValue
				if err := decode(&key); err != nil {
					return nil, err
				}
				if sizeOf(key.GetValue()) == sizes[1] {
					return &wrapperspb.BytesValue{Value: large}, nil
				}
				return &wrapperspb.BytesValue{Value: small}, nil
			},
		}},
	}, nil)
	return s
}

func dialGRPC(addr string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

func grpcCaller(c *grpc.ClientConn, size, i int) bench.Caller {
	ctx := context.Background()
	key := &wrapperspb.StringValue{Value: keyOf(size, i)}
	return bench.Caller{Call: func() error {
		var v wrapperspb.BytesValue
		if err := c.Invoke(ctx, grpcMethod, key, &v); err != nil {
			return err
		}
		if len(v.Value) != size {
			return fmt.Errorf("gRPC: %d bytes", len(v.Value))
		}
		return nil
	}}
}

// redisKeys is how many keys of each size Redis holds.
const redisKeys = 512 * keysEach

var errNoRedis = errors.New("redis-server not installed: apt-get install redis-server")

// startRedis starts a Redis that does not write to disk, and fills it.
func startRedis() (p *bench.Process, addr string, err error) {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, "", errNoRedis
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") // finds a free port
	if err != nil {
		return nil, "", err
	}
	addr = l.Addr().String()
	_ = l.Close()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, "", err
	}
	p, err = bench.Command(path, "--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no")
	if err != nil {
		return nil, "", err
	}
	var c rueidis.Client
	for deadline := time.Now().Add(10 * time.Second); ; {
		if c, err = dialRedis(addr, 0); err == nil {
			break
		}
		if time.Now().After(deadline) {
			return nil, "", errors.Join(fmt.Errorf("redis-server at %s does not answer: %w", addr, err), p.Stop())
		}
		time.Sleep(20 * time.Millisecond)
	}
	defer c.Close()
	for _, size := range sizes {
		for i := range redisKeys {
			cmd := c.B().Set().Key(keyOf(size, i)).Value(rueidis.BinaryString(value(size))).Build()
			if err := c.Do(context.Background(), cmd).Error(); err != nil {
				return nil, "", errors.Join(err, p.Stop())
			}
		}
	}
	return p, addr, nil
}

func dialRedis(addr string, delay time.Duration) (rueidis.Client, error) {
	return rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{addr}, DisableCache: true, MaxFlushDelay: delay,
	})
}

func redisCaller(c rueidis.Client, keys []string) bench.Caller {
	ctx := context.Background()
	i := 0
	return bench.Caller{Call: func() error {
		key := keys[i%len(keys)]
		size := sizeOf(key)
		i++
		v, err := c.Do(ctx, c.B().Get().Key(key).Build()).AsBytes()
		if err == nil && len(v) != size {
			err = fmt.Errorf("redis: %d bytes", len(v))
		}
		return err
	}}
}
