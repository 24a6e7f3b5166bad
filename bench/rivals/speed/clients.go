package main

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/rueidis"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weircache/weir/bench"
	"github.com/weircache/weir/bench/rivals/server"
)

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
		return checkSize(key.Value, len(v.Value))
	}}
}

// startRedis starts a Redis, with TLS or without, and fills it with the keys of all callers.
func startRedis(sealed bool) (*server.Redis, error) {
	ctx, cancel := context.WithTimeout(context.Background(), startWithin)
	defer cancel()
	start := server.StartRedis
	if sealed {
		start = server.StartRedisTLS
	}
	s, err := start(ctx)
	if err != nil {
		return nil, err
	}
	for _, size := range sizes {
		for i := range mostCallers * keysEach {
			cmd := s.Client.B().Set().Key(keyOf(size, i)).Value(rueidis.BinaryString(value(size))).Build()
			if err := s.Client.Do(ctx, cmd).Error(); err != nil {
				s.Stop()
				return nil, err
			}
		}
	}
	return s, nil
}

// flushDelays are the delays that rueidis is tried with.
var flushDelays = []time.Duration{0, 20 * time.Microsecond}

// redisName returns the name of a Redis in the table.
func redisName(sealed bool, delay time.Duration) string {
	name := redisPlain
	if sealed {
		name = redisSealed
	}
	if delay > 0 {
		name += fmt.Sprintf(", flush delay %v", delay)
	}
	return name
}

// redisCaller gets the keys in turn.
func redisCaller(c rueidis.Client, keys []string) bench.Caller {
	ctx := context.Background()
	i := 0
	return bench.Caller{Call: func() error {
		key := keys[i%len(keys)]
		i++
		v, err := c.Do(ctx, c.B().Get().Key(key).Build()).AsBytes()
		if err != nil {
			return err
		}
		return checkSize(key, len(v))
	}}
}

// mgetCaller gets all keys in one call from Redis.
func mgetCaller(c rueidis.Client, keys []string) bench.Caller {
	return bench.Caller{Call: func() error {
		got, err := rueidis.MGet(c, context.Background(), keys)
		if err != nil {
			return err
		}
		for _, k := range keys {
			m := got[k]
			b, err := m.AsBytes()
			if err != nil {
				return err
			}
			if err := checkSize(k, len(b)); err != nil {
				return err
			}
		}
		return nil
	}}
}
