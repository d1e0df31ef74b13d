// Command asmgen writes the assembly of package kernel. It is run by "go generate ./kernel".
package main

import (
	"flag"
	"log"
	"os"
	"path/filepath"

	"github.com/modelavg/modelavg/asmgen/amd64"
	"github.com/modelavg/modelavg/asmgen/dispatch"
	"github.com/modelavg/modelavg/asmgen/neon"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("asmgen: ")
	// A set of its own: avo registers flags of the same names on the default one.
	flags := flag.NewFlagSet("asmgen", flag.ExitOnError)
	out := flags.String("out", ".", "directory to write to")
	flags.Parse(os.Args[1:])

	for _, file := range []struct {
		name     string
		generate func() ([]byte, error)
	}{
		{"kernel_amd64.s", amd64.Generate},
		{"kernel_arm64.s", neon.Generate},
		{"dispatch_amd64.s", dispatch.AMD64},
		{"dispatch_arm64.s", dispatch.ARM64},
	} {
		text, err := file.generate()
		if err != nil {
			log.Fatalf("%s: %v", file.name, err)
		}
		if err := os.WriteFile(filepath.Join(*out, file.name), text, 0o666); err != nil {
			log.Fatal(err)
		}
	}
}
