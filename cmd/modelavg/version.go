package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/modelavg/modelavg/kernel"
)

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version and the kernels that this machine runs",
		Long: `Version prints the version, that of Go, the platform, the kernel implementation in use and all that this
machine can run. The environment variable MODELAVG_KERNEL, set to one of these, forces it; the results have the same
bits.`,
		Example: `  modelavg version
  MODELAVG_KERNEL=generic modelavg version`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			fmt.Fprintf(cmd.OutOrStdout(), "modelavg %s\n%s %s/%s\nkernel %s (of %s)\n", version(),
				runtime.Version(), runtime.GOOS, runtime.GOARCH,
				kernel.Implementation(), strings.Join(kernel.Implementations(), ", "))
			return nil
		},
	}
}

// version returns the version of the module that the program was built from, "(devel)" outside a release.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
