import ArgumentParser
import Commands

Peftool.main()
