// Command compare runs the harness's scenarios on weir and on its alternatives, with the same scenario, origin,
// schedule and bytes for all, alternately, in one session.
//
//	go run ./compare storm                      all systems, once
//	go run ./compare storm --rounds 3 --out storm
//	go run ./compare restart --systems weir,groupcache-go
//	go run ./compare cold-cluster --systems weir,redis+rueidisaside,redis+rueidisaside+limit
//	go run ./compare storm --systems weir,redis+rueidisaside,redis+rueidisaside+tls
//	go run ./compare storm --systems weir,groupcache-go,groupcache-go+otter
//	go run ./compare list
//
// Each rival is there a second time under its name with "+limit": with a semaphore around the origin on each node, as a
// service adds that knows what its origin bears. Each that uses a Redis is there with "+tls" as well, before "+limit": with
// TLS between the server and its clients, as weir has it between its nodes. All of these run only if --systems names them,
// as does groupcache-go+otter, so that the table of all systems fits a screen.
//
// Each rival has a small adapter in a file of its own, which documents its setup. What a rival cannot do is listed
// below the table. Rivals with a Redis or a memcached take part if redis-server or memcached is installed; otherwise the
// report says so.
package main

import (
	"os"

	"github.com/weircache/weir/bench/command"
	"github.com/weircache/weir/bench/harness"
)

// rivals returns all rivals, each with the configuration that suits it best.
func rivals() []harness.System {
	return []harness.System{
		aside{}, aside{shared: true}, loading{}, sturdy{}, pubSub{}, grouped{}, dmap{}, redis{}, softTTL{}, memcached{},
	}
}

// onlyNamed returns the systems that run only if they are asked for: a cache for machines that are larger than most,
// each rival that uses a Redis with TLS, and each rival with a limit.
func onlyNamed() []harness.System {
	tls := usesRedis{tls: true}
	all := []harness.System{grouped{otter: true}, pubSub{tls}, redis{tls}, softTTL{tls}}
	for _, r := range append(rivals(), all...) {
		all = append(all, limited{r})
	}
	return all
}

func main() {
	os.Exit(command.Main(command.Options{Use: "compare", Rivals: rivals(), OnlyNamed: onlyNamed()}, os.Args[1:]))
}
