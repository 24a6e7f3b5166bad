package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/redis/rueidis"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weircache/weir/bench"
	"github.com/weircache/weir/bench/rivals/server"
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

// startRedis starts a Redis and fills it.
func startRedis() (*server.Redis, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s, err := server.StartRedis(ctx)
	if err != nil {
		return nil, err
	}
	for _, size := range sizes {
		for i := range redisKeys {
			cmd := s.Client.B().Set().Key(keyOf(size, i)).Value(rueidis.BinaryString(value(size))).Build()
			if err := s.Client.Do(context.Background(), cmd).Error(); err != nil {
				s.Stop()
				return nil, err
			}
		}
	}
	return s, nil
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
