// Command freshet is the one binary: servers, command line, development cluster
// and demonstration.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/freshet-io/freshet/cmd/freshet/cli"
	"github.com/freshet-io/freshet/cmd/freshet/demo"
	"github.com/freshet-io/freshet/cmd/freshet/server"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	streams := cli.Streams{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
		Terminal: term.IsTerminal(int(os.Stderr.Fd())), Getenv: os.Getenv,
	}
	return cli.Run(ctx, os.Args[1:], streams, func(s cli.Streams) []*cobra.Command {
		exe, err := os.Executable()
		if err != nil {
			exe = os.Args[0]
		}
		servers := server.Commands(server.Options{Out: s.Out, Err: s.Err, Getenv: s.Getenv})
		return append(servers, demo.Command(demo.Options{Out: s.Out, Err: s.Err, Getenv: s.Getenv, Executable: exe}))
	})
}
