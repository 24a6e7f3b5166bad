// Command compare runs the harness's scenarios on weir and on its alternatives, with the same scenario, origin,
// schedule and bytes for all, alternately, in one session.
//
//	go run ./compare storm                      all systems, once
//	go run ./compare storm --rounds 3 --out storm
//	go run ./compare restart --systems weir,groupcache-go
//	go run ./compare list
//
// Each rival has a small adapter in a file of its own, which documents its setup. What a rival cannot do is listed
// below the table. Redis takes part if redis-server is installed; otherwise the report says so.
package main

import (
	"os"

	"github.com/weircache/weir/bench/command"
	"github.com/weircache/weir/bench/harness"
)

// rivals returns all rivals, each with the configuration that suits it best.
func rivals() []harness.System {
	return []harness.System{aside{}, aside{shared: true}, loading{}, grouped{}, dmap{}, redis{}}
}

func main() {
	os.Exit(command.Main(command.Options{Use: "compare", Rivals: rivals()}, os.Args[1:]))
}
