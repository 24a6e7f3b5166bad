// Interceptor caches the answers of a gRPC service without a change to its methods. A server interceptor looks into
// weir, and a miss runs the method on the node that owns the request, once for all nodes. This requires a key with
// everything that the method needs, so the key is the method's name and the request itself. Only the listed methods are
// cached: those that depend on nothing but their request.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	health "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/tier"
)

// Method describes a cached method: the type of its request and its implementation.
type Method struct {
	Request  func() proto.Message
	Response func() proto.Message
	Do       func(ctx context.Context, req proto.Message) (proto.Message, error)
}

// Cached caches the answers of methods, by their full names.
type Cached struct {
	methods map[string]Method
	answers *tier.Cache[[]byte]
}

// NewCached returns a Cached; cluster may be nil. Close its cache.
func NewCached(cluster tier.Cluster, methods map[string]Method, freshness tier.Freshness) (c *Cached, err error) {
	c = &Cached{methods: methods}
	c.answers, err = tier.New(tier.Config[[]byte]{
		Cluster: cluster, Namespace: "grpc", Codec: codec.Raw[[]byte](), Freshness: freshness, Loader: c.load,
	})
	return c, err
}

// load runs a method. Its errors apply to this call only, except NotFound, which is a fact.
func (c *Cached) load(ctx context.Context, fill *tier.Fill[[]byte]) ([]byte, error) {
	name, body, _ := strings.Cut(fill.Key, "\x00")
	m, ok := c.methods[name]
	if !ok {
		return nil, fmt.Errorf("no method %q here", name)
	}
	req := m.Request()
	if err := proto.Unmarshal([]byte(body), req); err != nil {
		return nil, err
	}
	resp, err := m.Do(ctx, req)
	switch {
	case status.Code(err) == codes.NotFound:
		return nil, tier.ErrNotFound
	case status.Code(err) == codes.Unavailable:
		return nil, tier.Retryable(err)
	case err != nil:
		return nil, err
	}
	return proto.MarshalOptions{Deterministic: true}.Marshal(resp)
}

// Intercept is a grpc.UnaryServerInterceptor.
func (c *Cached) Intercept(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	m, ok := c.methods[info.FullMethod]
	if !ok {
		return handler(ctx, req)
	}
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(req.(proto.Message))
	if err != nil {
		return nil, err
	}
	answer, err := c.answers.Get(ctx, info.FullMethod+"\x00"+string(body))
	switch {
	case errors.Is(err, tier.ErrKeyTooLarge):
		return handler(ctx, req)
	case errors.Is(err, tier.ErrNotFound):
		return nil, status.Error(codes.NotFound, "not found")
	case errors.Is(err, tier.ErrOverloaded):
		return nil, status.Error(codes.ResourceExhausted, err.Error())
	case err != nil:
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	resp := m.Response()
	return resp, proto.Unmarshal(answer, resp)
}

// slowHealth is the service of this example: it answers slowly and knows one name.
type slowHealth struct {
	health.UnimplementedHealthServer
	calls atomic.Int64
}

func (s *slowHealth) Check(_ context.Context, req *health.HealthCheckRequest) (*health.HealthCheckResponse, error) {
	s.calls.Add(1)
	time.Sleep(20 * time.Millisecond)
	if req.Service != "shop" {
		return nil, status.Error(codes.NotFound, "no such service")
	}
	return &health.HealthCheckResponse{Status: health.HealthCheckResponse_SERVING}, nil
}

func run(ctx context.Context) error {
	service := new(slowHealth)
	cached, err := NewCached(nil, map[string]Method{
		health.Health_Check_FullMethodName: {
			Request:  func() proto.Message { return new(health.HealthCheckRequest) },
			Response: func() proto.Message { return new(health.HealthCheckResponse) },
			Do: func(ctx context.Context, req proto.Message) (proto.Message, error) {
				return service.Check(ctx, req.(*health.HealthCheckRequest))
			},
		},
	}, tier.Freshness{TTL: time.Minute})
	if err != nil {
		return err
	}
	defer cached.answers.Close(ctx)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(cached.Intercept))
	health.RegisterHealthServer(server, service)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	client := health.NewHealthClient(conn)
	for range 3 {
		for _, name := range []string{"shop", "bank"} {
			resp, err := client.Check(ctx, &health.HealthCheckRequest{Service: name})
			fmt.Println(name, resp.GetStatus(), status.Code(err))
		}
	}
	fmt.Println("calls:", service.calls.Load())
	err = conn.Close()
	server.Stop()
	return errors.Join(err, <-served)
}

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}
