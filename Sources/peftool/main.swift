import Commands
import Glibc

exit(Peftool.status(running: Array(CommandLine.arguments.dropFirst())))
